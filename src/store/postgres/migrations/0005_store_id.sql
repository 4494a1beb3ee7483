-- Which of the stores of one installation key this is. It only has to differ.
INSERT INTO leasehold.numbers (name, value)
    VALUES ('store.id', ('x' || substr(replace(gen_random_uuid()::text, '-', ''), 1, 15))::bit(60)::bigint)
    ON CONFLICT (name) DO NOTHING;
