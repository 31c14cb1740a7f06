-- es_rewrite changes data and metadata of one event and nothing else, and opens
-- no way for any other UPDATE.
CREATE EXTENSION eventstore;
SELECT version FROM es_append('person-1', 'none', 'registered', '{"name": "Ann"}', '{"user": 1}', '00000000-0000-0000-0000-000000000001', '2026-01-01');
SELECT version FROM es_append('person-1', 1, 'moved', '{"city": "Bonn"}', NULL, '00000000-0000-0000-0000-000000000002');
SELECT version FROM es_append('person-2', 'none', 'registered', '{"name": "Ann"}', '{"user": 1}', '00000000-0000-0000-0000-000000000003');
CREATE TABLE before AS SELECT * FROM es_events;
-- What has changed since, and in which columns.
CREATE FUNCTION changes(OUT "position" bigint, OUT data jsonb, OUT metadata jsonb, OUT all_else_same boolean) RETURNS SETOF record LANGUAGE sql AS $$
    SELECT e.position, e.data, e.metadata, to_jsonb(e) - 'data' - 'metadata' = to_jsonb(b) - 'data' - 'metadata'
      FROM es_events e FULL JOIN before b USING (position)
     WHERE (to_jsonb(e) = to_jsonb(b)) IS NOT TRUE ORDER BY 1 $$;

-- Data; metadata only if it is given.
SELECT es_rewrite('00000000-0000-0000-0000-000000000001', '{"name": null}');
SELECT * FROM changes();
SELECT es_rewrite('00000000-0000-0000-0000-000000000002', '"gone"', '{}');
SELECT * FROM changes();
SELECT es_rewrite(id => '00000000-0000-0000-0000-000000000001', data => '{"name": "Ann"}', metadata => '{"user": 1}');
SELECT * FROM changes();
SELECT data FROM es_load('person-1');
SELECT version, position FROM es_append('person-1', 2, 'moved');
SELECT es_horizon(), es_stream_version('person-1');
-- A retry is known by its id, whatever is in the event by now.
SELECT version, position FROM es_append('person-1', 1, 'moved', '{"city": "Bonn"}', NULL, '00000000-0000-0000-0000-000000000002');
-- The event of this transaction, and back again.
BEGIN;
SELECT version FROM es_append('person-3', 'none', 'registered', '{"name": "Bob"}', NULL, '00000000-0000-0000-0000-000000000004');
SELECT es_rewrite('00000000-0000-0000-0000-000000000004', '{}');
SELECT es_rewrite('00000000-0000-0000-0000-000000000004', '{"name": "B"}', '{"by": "us"}');
SELECT version, data, metadata FROM es_load('person-3');
ROLLBACK;
BEGIN;
SELECT es_rewrite('00000000-0000-0000-0000-000000000003', '{}');
ROLLBACK;
SELECT data FROM es_load('person-2');
-- Within one statement.
SELECT (es_append('person-5', 'none', 'registered', '1', id => '00000000-0000-0000-0000-000000000005')).version,
       es_rewrite('00000000-0000-0000-0000-000000000005', '2') > 0 AS rewritten,
       (es_append('person-5', 'none', 'registered', '1', id => '00000000-0000-0000-0000-000000000005')).version AS retried,
       (SELECT data FROM es_last_event('person-5')), (es_append('person-5', 1, 'moved')).version AS next;
SELECT version, data FROM es_load('person-5');
-- Large values.
SELECT es_rewrite('00000000-0000-0000-0000-000000000003', jsonb_build_object('name', repeat('Ann ', 100000)), jsonb_build_object('x', repeat('y', 100000)));
SELECT length(data->>'name'), length(metadata->>'x') FROM es_load('person-2');
SELECT es_rewrite('00000000-0000-0000-0000-000000000003', '{"name": "Ann"}', '{"user": 1}');

-- The schema version: data that a reader got upcast is not stored as data of the old version.
CREATE FUNCTION up(data jsonb) RETURNS jsonb LANGUAGE sql AS $$ SELECT jsonb_build_object('first', data->'name') $$;
SELECT version FROM es_append('person-8', 'none', 'named', '{"name": "Ann"}', '{"user": 1}', '00000000-0000-0000-0000-000000000008');
SELECT es_define_event_type('named', schema_version => 2), es_define_upcaster('named', 1, 'up');
CREATE VIEW stored AS SELECT e.data AS stored, e.metadata, l.data AS read, l.metadata->>'schema_version' AS as_of
  FROM es_events e, es_load('person-8') l WHERE e.stream = 'person-8';
SELECT * FROM stored;
SELECT es_rewrite(id, data) FROM es_load('person-8');
SELECT es_rewrite(id, data) FROM es_event('00000000-0000-0000-0000-000000000008');
SELECT es_rewrite(id, data, '{"erased": true}') FROM es_load('person-8');
SELECT es_rewrite(id, data, '{"schema_version": null}') FROM es_load('person-8');
SELECT es_rewrite(id, data, '{"schema_version": 1}', 2) FROM es_load('person-8');
SELECT es_rewrite(id, data, '{"schema_version": "x"}') FROM es_load('person-8');
SELECT es_rewrite(id, data, schema_version => 0) FROM es_load('person-8');
SELECT es_rewrite(id, data, schema_version => 3) FROM es_load('person-8');
SELECT * FROM stored;
BEGIN;
SELECT es_rewrite(id, '{"name": "Eve"}', schema_version => 1) FROM es_load('person-8');
SELECT * FROM stored;
SELECT es_rewrite(id, '{"name": "Bob"}', '{"schema_version": "1"}') FROM es_load('person-8');
SELECT * FROM stored;
ROLLBACK;
BEGIN;
SELECT es_rewrite(id, data, metadata) FROM es_load('person-8');
SELECT * FROM stored;
ROLLBACK;
SELECT es_rewrite(id, data || '{"last": null}', schema_version => 2) FROM es_load('person-8');
SELECT * FROM stored;
-- Now readers get it as it is stored, and the version stays.
SELECT es_rewrite(id, data || '{"first": "A"}') FROM es_load('person-8');
SELECT * FROM stored;
SELECT es_rewrite(id, data, '{"erased": true}') FROM es_load('person-8');
SELECT * FROM stored;
SELECT es_rewrite(id, data, '{"erased": true}', 2) FROM es_load('person-8');
-- A version beyond the definition is possible where an upcaster leads to it.
SELECT es_define_event_type('named'), es_rewrite('00000000-0000-0000-0000-000000000008', '{}', '{"schema_version": 1}');
SELECT es_rewrite(id, data, schema_version => 2) FROM es_load('person-8');
SELECT es_drop_event_type('named');
-- Where versions are nothing to the store they are the caller's.
SELECT es_rewrite('00000000-0000-0000-0000-000000000008', '{}', '{"schema_version": "v1"}');
SELECT * FROM stored;
DROP VIEW stored;
DROP FUNCTION up;

-- Refused.
SELECT es_rewrite(NULL, '{}');
SELECT es_rewrite('00000000-0000-0000-0000-000000000001', NULL);
SELECT es_rewrite('00000000-0000-0000-0000-000000000001', '{}', '[]');
SELECT es_rewrite('00000000-0000-0000-0000-000000000001', '{}', 'null');
SELECT es_rewrite('00000000-0000-0000-0000-000000000009', '{}');
BEGIN READ ONLY;
SELECT es_rewrite('00000000-0000-0000-0000-000000000001', '{}');
ROLLBACK;

-- Any other UPDATE is refused, before and afterwards.
UPDATE es_events SET data = '{}' WHERE id = '00000000-0000-0000-0000-000000000001';
BEGIN;
SELECT es_rewrite('00000000-0000-0000-0000-000000000001', '{"name": "x"}');
UPDATE es_events SET data = '{}';
ROLLBACK;
SELECT es_rewrite('00000000-0000-0000-0000-000000000009', '{}');
UPDATE es_events SET data = '{}';
DELETE FROM es_events;
TRUNCATE es_events;
ALTER TABLE es_events ADD CONSTRAINT named CHECK (data->>'name' <> 'nobody');
\set VERBOSITY terse
BEGIN;
SAVEPOINT s;
SELECT es_rewrite('00000000-0000-0000-0000-000000000001', '{"name": "nobody"}');
ROLLBACK TO s;
UPDATE es_events SET data = '{}';
ROLLBACK;
SELECT es_rewrite('00000000-0000-0000-0000-000000000001', '{"name": "nobody"}');
\set VERBOSITY default
UPDATE es_events SET data = '{}';
ALTER TABLE es_events DROP CONSTRAINT named;

-- AFTER triggers and generated columns are honoured, with the owner's rights
-- and without the caller's search_path.
CREATE TABLE seen (what text);
CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO public.seen VALUES (concat_ws(' ', TG_WHEN, TG_OP, TG_LEVEL, OLD.data, NEW.data, current_setting('search_path')));
    RETURN NULL;
END $$;
CREATE TRIGGER note_row AFTER UPDATE ON es_events FOR EACH ROW EXECUTE FUNCTION note();
CREATE TRIGGER note_before BEFORE UPDATE ON es_events FOR EACH STATEMENT EXECUTE FUNCTION note();
CREATE TRIGGER note_after AFTER UPDATE ON es_events FOR EACH STATEMENT EXECUTE FUNCTION note();
ALTER TABLE es_events ADD COLUMN name text GENERATED ALWAYS AS (data->>'name') STORED;
SELECT es_rewrite('00000000-0000-0000-0000-000000000001', '{"name": "Eve"}');
SELECT name FROM es_events WHERE id = '00000000-0000-0000-0000-000000000001';
SELECT * FROM seen;
ALTER TABLE es_events DROP COLUMN name;
DROP TRIGGER note_row ON es_events;
DROP TRIGGER note_before ON es_events;
DROP TRIGGER note_after ON es_events;
SELECT es_rewrite('00000000-0000-0000-0000-000000000001', '{"name": "Ann"}');

-- No trigger that fires meanwhile can change another event: not before the one
-- that allows it, not for the row, not afterwards.
CREATE FUNCTION change_all() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF pg_trigger_depth() = 1 THEN
        UPDATE public.es_events SET data = '"all"';
    END IF;
    RETURN NULL;
END $$;
CREATE FUNCTION try_to_change_all() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF pg_trigger_depth() = 1 THEN
        UPDATE public.es_events SET data = '"all"';
    END IF;
    RETURN NULL;
EXCEPTION WHEN OTHERS THEN
    RAISE NOTICE '%: %', TG_NAME, SQLERRM;
    RETURN NULL;
END $$;
\set VERBOSITY terse
CREATE TRIGGER a_first BEFORE UPDATE ON es_events FOR EACH STATEMENT EXECUTE FUNCTION change_all();
SELECT es_rewrite('00000000-0000-0000-0000-000000000001', '{}');
DROP TRIGGER a_first ON es_events;
CREATE TRIGGER z_last BEFORE UPDATE ON es_events FOR EACH STATEMENT EXECUTE FUNCTION change_all();
SELECT es_rewrite('00000000-0000-0000-0000-000000000001', '{}');
DROP TRIGGER z_last ON es_events;
CREATE TRIGGER a_row AFTER UPDATE ON es_events FOR EACH ROW EXECUTE FUNCTION change_all();
SELECT es_rewrite('00000000-0000-0000-0000-000000000001', '{}');
DROP TRIGGER a_row ON es_events;
CREATE CONSTRAINT TRIGGER a_row AFTER UPDATE ON es_events DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION change_all();
SELECT es_rewrite('00000000-0000-0000-0000-000000000001', '{}');
DROP TRIGGER a_row ON es_events;
CREATE TRIGGER a_first BEFORE UPDATE ON es_events FOR EACH STATEMENT EXECUTE FUNCTION try_to_change_all();
CREATE TRIGGER z_last BEFORE UPDATE ON es_events FOR EACH STATEMENT EXECUTE FUNCTION try_to_change_all();
CREATE TRIGGER a_row AFTER UPDATE ON es_events FOR EACH ROW EXECUTE FUNCTION try_to_change_all();
CREATE TRIGGER a_statement AFTER UPDATE ON es_events FOR EACH STATEMENT EXECUTE FUNCTION try_to_change_all();
CREATE CONSTRAINT TRIGGER at_commit AFTER UPDATE ON es_events DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION try_to_change_all();
SELECT es_rewrite('00000000-0000-0000-0000-000000000003', '{"name": "Bob"}');
SELECT * FROM changes() WHERE position <= 3;
DROP TRIGGER a_first ON es_events;
DROP TRIGGER z_last ON es_events;
DROP TRIGGER a_row ON es_events;
DROP TRIGGER a_statement ON es_events;
DROP TRIGGER at_commit ON es_events;
-- Within an append, too.
CREATE FUNCTION rewrite_it() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM es_rewrite(NEW.id, NEW.data || '{"seen": true}');
    UPDATE public.es_events SET data = '"all"';
    RETURN NULL;
END $$;
CREATE TRIGGER rewrite_it AFTER INSERT ON es_events FOR EACH ROW EXECUTE FUNCTION rewrite_it();
SELECT es_append('person-4', 'none', 'registered');
DROP TRIGGER rewrite_it ON es_events;
\set VERBOSITY default
-- One that could change more than data is refused.
CREATE TRIGGER skip BEFORE UPDATE ON es_events FOR EACH ROW EXECUTE FUNCTION note();
SELECT es_rewrite('00000000-0000-0000-0000-000000000003', '{}');
DROP TRIGGER skip ON es_events;
SELECT * FROM changes() WHERE position <= 3;

-- Only the owner and roles that it grants EXECUTE may. No right on the table is needed.
CREATE ROLE es_test_eraser;
GRANT EXECUTE ON FUNCTION es_append TO es_test_eraser;
SET ROLE es_test_eraser;
SELECT es_rewrite('00000000-0000-0000-0000-000000000003', '{}');
RESET ROLE;
GRANT EXECUTE ON FUNCTION es_rewrite TO es_test_eraser;
SET ROLE es_test_eraser;
SELECT es_rewrite('00000000-0000-0000-0000-000000000003', '{}');
UPDATE es_events SET data = '{}';
SELECT data FROM es_events;
RESET ROLE;
SELECT * FROM changes() WHERE position <= 3;

-- The statements of doc/guide/rewrite.md.
SELECT es_rewrite('00000000-0000-0000-0000-000000000001', '{"name": null}');
SELECT es_rewrite('00000000-0000-0000-0000-000000000001', '{"name": null}', '{"erased": "2026-01-31"}');
SELECT * FROM changes() WHERE position = 1;

DROP FUNCTION changes();
DROP TABLE seen, before;
DROP EXTENSION eventstore;
DROP ROLE es_test_eraser;
DROP FUNCTION note, change_all, try_to_change_all, rewrite_it;
