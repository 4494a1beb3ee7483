-- Which installation key marks what is minted from this store, by its public name. It is written by the next start.
ALTER TABLE identity ADD COLUMN installation TEXT;
