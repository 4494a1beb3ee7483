-- Which installation key marks what is minted from this store, by its public name; and which file this was, so that a
-- copy of it is known for one. Both are written by the next start.
ALTER TABLE identity ADD COLUMN installation TEXT;
ALTER TABLE identity ADD COLUMN file TEXT;
-- Which of the stores of one installation key this is. It only has to differ.
INSERT OR IGNORE INTO numbers (name, value) VALUES ('store.id', random() & 9223372036854775807);
