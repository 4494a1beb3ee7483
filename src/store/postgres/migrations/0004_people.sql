-- Whom a task acts for, as `ISSUER|SUBJECT`: an operator ends all that is done for a person.
ALTER TABLE leasehold.tasks ADD COLUMN person text COLLATE "C";
CREATE INDEX tasks_by_person ON leasehold.tasks (person, id) WHERE person IS NOT NULL;
