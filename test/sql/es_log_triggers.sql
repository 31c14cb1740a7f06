-- AFTER triggers on es_events fire, for each row and each call, with the new
-- rows as a relation; constraints of the owner's hold.
CREATE EXTENSION eventstore;
CREATE TABLE seen (what text, n bigint);
CREATE FUNCTION each_row() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO seen VALUES ('row ' || NEW.type, NEW.position);
    RETURN NULL;
END $$;
CREATE FUNCTION each_call() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO seen SELECT 'call ' || string_agg(type, ',' ORDER BY position), count(*) FROM new_events;
    RETURN NULL;
END $$;
CREATE TRIGGER each_row AFTER INSERT ON es_events FOR EACH ROW WHEN (NEW.type <> 'silent') EXECUTE FUNCTION each_row();
CREATE TRIGGER each_call AFTER INSERT ON es_events REFERENCING NEW TABLE AS new_events FOR EACH STATEMENT EXECUTE FUNCTION each_call();
SELECT es_append('s-1', 'any', 'one');
SELECT es_append('s-1', 'any', 'silent');
SELECT es_append_batch('s-1', 'any', '[{"type": "two"}, {"type": "three"}]');
INSERT INTO es_import (stream, type) VALUES ('s-2', 'four'), ('s-3', 'five');
SELECT * FROM seen;
TRUNCATE seen;

-- A trigger may append in its turn.
CREATE FUNCTION reply() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM es_append('reply-1', 'any', 'replied', jsonb_build_object('to', NEW.position));
    RETURN NULL;
END $$;
CREATE TRIGGER reply AFTER INSERT ON es_events FOR EACH ROW WHEN (NEW.type = 'asked') EXECUTE FUNCTION reply();
SELECT es_append_batch('s-1', 'any', '[{"type": "asked"}, {"type": "asked"}]');
INSERT INTO es_import (stream, type) VALUES ('s-2', 'asked'), ('reply-1', 'imported');
SELECT version, type FROM es_load('reply-1');
DROP TRIGGER reply ON es_events;

-- Its error refuses the append, also at commit.
CREATE FUNCTION forbid() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'forbidden by a trigger';
END $$;
CREATE TRIGGER forbid AFTER INSERT ON es_events FOR EACH ROW WHEN (NEW.type = 'bad') EXECUTE FUNCTION forbid();
SELECT es_append_batch('s-9', 'any', '[{"type": "good"}, {"type": "bad"}]');
DROP TRIGGER forbid ON es_events;
CREATE CONSTRAINT TRIGGER forbid AFTER INSERT ON es_events DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW WHEN (NEW.type = 'bad') EXECUTE FUNCTION forbid();
BEGIN;
SELECT version FROM es_append('s-9', 'any', 'bad');
COMMIT;
DROP TRIGGER forbid ON es_events;

-- A unique violation of another table stays what it is.
CREATE TABLE emails (email text PRIMARY KEY);
CREATE FUNCTION email() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO emails VALUES (NEW.data ->> 'email');
    RETURN NULL;
END $$;
CREATE TRIGGER email AFTER INSERT ON es_events FOR EACH ROW WHEN (NEW.type = 'registered') EXECUTE FUNCTION email();
SELECT version FROM es_append('s-9', 'any', 'registered', '{"email": "a@b"}');
SELECT version FROM es_append('s-9', 'any', 'registered', '{"email": "a@b"}');
SELECT es_stream_version('s-9');
DROP TRIGGER email ON es_events;

-- The owner's constraints, unique indexes and generated columns.
ALTER TABLE es_events ADD CONSTRAINT small CHECK ((data ->> 'n')::int < 10);
\set VERBOSITY terse
SELECT es_append('s-4', 'any', 't', '{"n": 11}');
\set VERBOSITY default
SELECT version FROM es_append('s-4', 'any', 't', '{"n": 9}');
ALTER TABLE es_events DROP CONSTRAINT small;
CREATE UNIQUE INDEX one_king ON es_events (type) WHERE type = 'crowned';
SELECT version FROM es_append('s-4', 'any', 'crowned');
SELECT version FROM es_append('s-5', 'any', 'crowned');
ALTER TABLE es_events ADD COLUMN tenant text GENERATED ALWAYS AS (data ->> 'tenant') STORED;
SELECT version FROM es_append_batch('s-4', 'any', '[{"type": "t", "data": {"tenant": "x"}}, {"type": "t"}]');
SELECT version, tenant FROM es_events WHERE stream = 's-4' ORDER BY version;
ALTER TABLE es_events DROP COLUMN tenant;

-- A trigger that could change or skip a numbered row is refused.
CREATE FUNCTION skip() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
CREATE TRIGGER skip BEFORE INSERT ON es_events FOR EACH ROW EXECUTE FUNCTION skip();
SELECT es_append('s-6', 'any', 't');
DROP TRIGGER skip ON es_events;

-- A table that the owner has broken gives an error, no crash.
ALTER TABLE es_events DROP COLUMN metadata;
ALTER TABLE es_events ALTER COLUMN data TYPE text;
BEGIN;
ALTER TABLE es_events DROP CONSTRAINT es_events_id_key;
SELECT es_append('s-6', 'any', 't');
ROLLBACK;
BEGIN;
ALTER TABLE es_events DROP CONSTRAINT es_events_pkey;
SELECT es_horizon();
ROLLBACK;
SELECT es_stream_version('s-6');

DROP TABLE seen, emails;
DROP EXTENSION eventstore;
DROP FUNCTION each_row, each_call, reply, forbid, email, skip;
