-- es_delete_stream and es_truncate_stream: what is left, what is appended after them, retries,
-- conditions, the horizon.
CREATE EXTENSION eventstore;
CREATE VIEW log AS SELECT position, stream, version, type, data, tags FROM es_events;
-- A plan from before the first removal of the store.
PREPARE first_page AS SELECT version, type FROM es_load('account-1', 0, 1);
SET plan_cache_mode = force_generic_plan;
SELECT version, position FROM es_append('account-1', 'none', 'opened', '{"n": 1}', '{"user": 1}', '00000000-0000-0000-0000-000000000001', tags => '{account:1,owner:ann}');
SELECT version, position FROM es_append('account-1', 1, 'deposited', '{"n": 2}', NULL, '00000000-0000-0000-0000-000000000002', tags => '{account:1}');
SELECT version, position FROM es_append('account-2', 'none', 'opened', '{"n": 3}');

EXECUTE first_page;

-- Refused, and nothing is stored.
SELECT * FROM es_delete_stream('account-1', 1);
SELECT * FROM es_delete_stream('account-1', 'none');
SELECT * FROM es_delete_stream('account-9', 'exists');
SELECT * FROM es_delete_stream('', 'any');
SELECT * FROM es_delete_stream('es_x-1', 'any');
SELECT * FROM es_delete_stream('account-1', 'any', metadata => '[]');
SELECT es_truncate_stream('account-1', 0);
SELECT es_truncate_stream('account-1', 2);
SELECT count(*) FROM es_removals;
BEGIN READ ONLY;
SELECT * FROM es_delete_stream('account-1', 'any');
ROLLBACK;

-- A stream without events.
SELECT * FROM es_delete_stream('account-9', 'none');
-- A rollback leaves nothing.
BEGIN;
SELECT * FROM es_delete_stream('account-1', 2);
SELECT * FROM log ORDER BY position;
ROLLBACK;
SELECT count(*) FROM es_removals;
SELECT tag, position, type FROM es_tags ORDER BY 1, 2;

SELECT * FROM es_delete_stream('account-1', 2, metadata => '{"why": "closed"}');
SELECT * FROM log ORDER BY position;
SELECT metadata FROM es_last_event('account-1');
EXECUTE first_page;
RESET plan_cache_mode;
DEALLOCATE first_page;
SELECT tag, position, type FROM es_tags ORDER BY 1, 2;
SELECT action, stream, position, positions, versions, removed, horizon, removed_by = current_user AS by_us, metadata FROM es_removals ORDER BY id;
SELECT id, stream, version, position FROM es_removed_ids ORDER BY id;
-- Again: the first result.
SELECT * FROM es_delete_stream('account-1', 2);
SELECT * FROM es_delete_stream('account-1', 'any');
SELECT * FROM es_delete_stream('account-1', 'exists');
-- Retries of what was removed are known by their ids.
SELECT version, position FROM es_append('account-1', 'none', 'opened', '{"n": 1}', id => '00000000-0000-0000-0000-000000000001', tags => '{account:1,owner:ann}');
SELECT version, position FROM es_append('account-1', 1, 'deposited', id => '00000000-0000-0000-0000-000000000002');
SELECT version, position FROM es_append_batch('account-1', 'any', '[{"type": "opened", "id": "00000000-0000-0000-0000-000000000001"}, {"type": "deposited"}]');
SELECT version, position FROM es_append('account-2', 'any', 'opened', id => '00000000-0000-0000-0000-000000000001');
SELECT version, position FROM es_append_batch('account-1', 'any', '[{"type": "deposited", "id": "00000000-0000-0000-0000-000000000002"}, {"type": "opened", "id": "00000000-0000-0000-0000-000000000001"}]');
COPY es_import (stream, type, id) FROM stdin;
account-1	opened	00000000-0000-0000-0000-000000000001
\.
SELECT count(*) FROM es_events;
-- Conditions meet the notice, by each of its tags and types, and by no other.
SELECT * FROM es_append_if('[{"stream": "x-1", "type": "t"}]', '[{"tags": ["account:1"]}]', 2);
SELECT * FROM es_append_if('[{"stream": "x-1", "type": "t"}]', '[{"tags": ["account:1", "owner:ann"], "types": ["deposited"]}]', 2);
SELECT * FROM es_append_if('[{"stream": "x-1", "type": "t"}]', '[{"types": ["deposited"]}]', 2);
SELECT * FROM es_append_if('[{"stream": "x-1", "type": "t"}]', '[{"types": ["closed"]}, {"tags": ["account:1"], "types": ["closed"]}]', 2);
SELECT position, type FROM es_query('[{"tags": ["owner:ann"], "types": ["opened"]}]');
SELECT position, type FROM es_query('[{"types": ["deposited"]}]', backward => true);
SELECT position, type FROM es_read(0, 10, '[{"types": ["deposited"]}]');
SELECT es_index_type('deposited');
SELECT es_index_type('withdrawn');
SELECT position, type FROM es_query('[{"types": ["deposited"]}]');
SELECT position, type FROM es_query('[{"types": ["deposited"]}]', backward => true);
SELECT position, type FROM es_query('[{"types": ["withdrawn"]}]');
SELECT * FROM es_append_if('[{"stream": "x-2", "type": "t"}]', '[{"types": ["deposited"]}]', 2);
DROP INDEX es_events_type_deposited_idx, es_events_type_withdrawn_idx;

-- What is appended after it.
SELECT version, position FROM es_append('account-1', 'exists', 'opened');
SELECT version, position FROM es_append('account-1', 2, 'opened');
SELECT version FROM es_append('account-1', 'none', 'opened', '{"n": 4}', id => '00000000-0000-0000-0000-000000000004');
SELECT version FROM es_append('account-1', 4, 'deposited', '{"n": 5}');
SELECT version FROM es_append('account-1', 'exists', 'deposited', '{"n": 6}');
SELECT version FROM es_append('account-1', 'none', 'opened');
SELECT version, type FROM es_load('account-1');
SELECT version, type FROM es_load('account-1', 0, 2);
SELECT version, type FROM es_load('account-1', 4, 1);
SELECT version, type FROM es_load('account-1', max_count => 9223372036854775807);
SELECT version, type FROM es_load_backward('account-1', max_count => 3);
SELECT es_stream_version('account-1');

-- The events of several deletions.
SELECT version, removed FROM es_delete_stream('account-1', 6);
SELECT version, type, data, tags FROM es_load('account-1');
SELECT version FROM es_append('account-1', 7, 'reopened');
-- For good.
SELECT version, removed FROM es_delete_stream('account-1', 'any', true);
SELECT version, type, data FROM es_load('account-1');
SELECT version, removed FROM es_delete_stream('account-1', 'any', true);
SELECT version, removed FROM es_delete_stream('account-1', 'any');
SELECT version FROM es_append('account-1', 'any', 'opened');
SELECT version FROM es_append('account-1', 'none', 'opened');
SELECT version FROM es_append('account-1', 9, 'opened');
SELECT version FROM es_append('account-1', 1, 'opened');
SELECT * FROM es_append_if('[{"stream": "account-1", "type": "opened"}]', '[{"tags": ["none"]}]');
INSERT INTO es_import (stream, type) VALUES ('account-2', 'renamed'), ('account-1', 'opened');
SELECT version FROM es_append('account-1', 'none', 'opened', '{"n": 4}', id => '00000000-0000-0000-0000-000000000004');
SELECT version, removed FROM es_delete_stream('account-7', 'none', true);
SELECT positions, versions, removed FROM es_removals WHERE stream = 'account-7';
SELECT version FROM es_append('account-7', 'none', 'opened');

-- Truncation: never the last event, by nobody's leave counted from the first that is kept.
SELECT version FROM es_append_batch('sensor-1', 'none', (SELECT jsonb_agg(jsonb_build_object('type', 'measured', 'data', n)) FROM generate_series(1, 9) n));
SELECT es_truncate_stream('sensor-1', 4);
SELECT es_truncate_stream('sensor-1', 4);
SELECT version, data FROM es_load('sensor-1', 0, 3);
SELECT version, data FROM es_load('sensor-1', 2, 3);
SELECT version, data FROM es_load('sensor-1', 5, 3);
SELECT version, data FROM es_load_backward('sensor-1', 6, 5);
SELECT version FROM es_append('sensor-1', 9, 'measured');
SELECT es_truncate_stream('sensor-1', 9223372036854775807, '{"why": "old"}');
SELECT version, data FROM es_load('sensor-1');
SELECT es_truncate_stream('sensor-1', 100);
SELECT es_truncate_stream('sensor-2', 100);
SELECT action, stream, versions, removed, metadata FROM es_removals WHERE stream = 'sensor-1' ORDER BY id;

-- The horizon stays where it was, though its event is gone, and rises again.
SELECT position AS last FROM es_append('last-1', 'none', 't') \gset
SELECT version FROM es_append('last-1', 1, 't');
SELECT es_horizon() = :last + 1 AS at_last;
SELECT version FROM es_append('last-1', 2, 't');
SELECT es_horizon() AS before \gset
SELECT es_truncate_stream('last-1', 3);
SELECT es_horizon() = :before AS same;
BEGIN;
SELECT version FROM es_append('last-2', 'none', 't');
SELECT removed FROM es_delete_stream('last-2', 1);
COMMIT;
SELECT es_horizon() = (SELECT max(position) FROM es_events) AS at_last;

-- Other statements are refused as ever.
DELETE FROM es_events;
DELETE FROM es_events WHERE stream = 'last-1';
\set VERBOSITY terse
-- The owner's triggers: one that could keep a row is refused, others are fired.
CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;
CREATE TRIGGER keep BEFORE DELETE ON es_events FOR EACH ROW EXECUTE FUNCTION keep();
SELECT removed FROM es_delete_stream('last-1', 'any');
DROP TRIGGER keep ON es_events;
CREATE TABLE gone (stream text, version bigint);
CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    INSERT INTO public.gone VALUES (old.stream, old.version);
    DELETE FROM public.es_events WHERE stream = 'account-2';
    RETURN NULL; END $$;
CREATE TRIGGER note AFTER DELETE ON es_events FOR EACH ROW EXECUTE FUNCTION note();
SELECT removed FROM es_delete_stream('last-1', 'any');
CREATE OR REPLACE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO public.gone VALUES (old.stream, old.version); RETURN NULL; END $$;
SELECT removed FROM es_delete_stream('last-1', 'any');
SELECT * FROM gone;
DROP TRIGGER note ON es_events;
-- A table that refers to an event keeps it.
CREATE TABLE refers (position bigint REFERENCES es_events);
INSERT INTO refers SELECT position FROM es_last_event('account-2');
SELECT removed FROM es_delete_stream('account-2', 'any');
DROP TABLE refers;
\set VERBOSITY default
-- Row security does not hide events from a removal.
ALTER TABLE es_events ENABLE ROW LEVEL SECURITY;
ALTER TABLE es_events FORCE ROW LEVEL SECURITY;
SELECT removed FROM es_delete_stream('account-2', 'any');
ALTER TABLE es_events NO FORCE ROW LEVEL SECURITY;
ALTER TABLE es_events DISABLE ROW LEVEL SECURITY;
SELECT version, type, data FROM es_load('account-2');
-- More tags than an event of a caller may have.
SELECT count(es_append('tagged-1', 'any', 't', tags => ARRAY(SELECT 'tag:' || n FROM generate_series(k, 130, 3) n))) FROM generate_series(1, 3) k;
SELECT removed FROM es_delete_stream('tagged-1', 'any');
SELECT array_length(tags, 1) FROM es_last_event('tagged-1');
SELECT count(*) FROM es_query('[{"tags": ["tag:130", "tag:1"]}]');
-- At REPEATABLE READ what others have appended since cannot be removed.
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT version FROM es_append('rr-1', 'none', 't');
SELECT removed FROM es_delete_stream('rr-1', 1);
COMMIT;
-- es_tags agrees.
SELECT * FROM es_reindex_tags();

DROP VIEW log;
DROP FUNCTION keep(), note();
DROP TABLE gone;
DROP EXTENSION eventstore;
