-- Whom a task acts for, as `ISSUER|SUBJECT`: an operator ends all that is done for a person.
ALTER TABLE tasks ADD COLUMN person TEXT;
CREATE INDEX tasks_by_person ON tasks (person, id) WHERE person IS NOT NULL;
