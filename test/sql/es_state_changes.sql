-- Snapshots when the events change that a reducer gets: by upcasters, and by
-- es_rewrite.
CREATE EXTENSION eventstore;
SET eventstore.snapshot_every = 2;
CREATE FUNCTION names(state jsonb, event es_recorded_event) RETURNS jsonb LANGUAGE sql AS
    $$ SELECT state || jsonb_build_object(event.version::text, coalesce(event.data->>'who', event.data->>'by')) $$;
SELECT version FROM es_append_batch('door-1', 'none', '[{"type": "opened", "data": {"by": "Ann"}}, {"type": "opened", "data": {"by": "Bob"}},
    {"type": "opened", "data": {"who": "Cid"}, "metadata": {"schema_version": 2}}]');
CREATE FUNCTION saved() RETURNS bigint LANGUAGE sql AS 'SELECT count(DISTINCT fingerprint) FROM es_snapshots';
-- Whether a snapshot is saved, and used: a forged one comes back.
CREATE FUNCTION forged() RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    UPDATE es_snapshots SET state = '"forged"';
    RETURN (SELECT state FROM es_state('door-1', 'names'::regproc)) = '"forged"';
END $$;
SELECT * FROM es_state('door-1', 'names'::regproc);
SELECT forged();

-- An upcaster is defined, replaced as a function, removed: each is another reducer.
CREATE FUNCTION opened_1(data jsonb) RETURNS jsonb LANGUAGE sql AS $$ SELECT data - 'by' || jsonb_build_object('who', upper(data->>'by')) $$;
SELECT es_define_upcaster('opened', 1, 'opened_1(jsonb)');
SELECT * FROM es_state('door-1', 'names'::regproc);
SELECT forged();
CREATE OR REPLACE FUNCTION opened_1(data jsonb) RETURNS jsonb LANGUAGE sql AS $$ SELECT data - 'by' || jsonb_build_object('who', lower(data->>'by')) $$;
SELECT * FROM es_state('door-1', 'names'::regproc);
SELECT forged();
BEGIN;
SELECT es_define_upcaster('opened', 1, NULL);
SELECT * FROM es_state('door-1', 'names'::regproc);
ROLLBACK;
SELECT forged();
SELECT version, state FROM es_history('door-1', 'names'::regproc);
SELECT state FROM es_state('door-1', 'es_last'::regproc, at_version => 2);
SELECT state FROM es_state('door-1', 'es_merge'::regproc, at_version => 2);
SELECT state FROM es_state('door-1', 'names'::regproc, by_time => 'occurred');
-- A decider gets a state of upcast events.
DELETE FROM es_snapshots;
CREATE FUNCTION last_of(state jsonb, command jsonb) RETURNS jsonb LANGUAGE sql AS
    $$ SELECT jsonb_build_array(jsonb_build_object('type', 'opened', 'data', jsonb_build_object('who', state->>'2'), 'metadata', '{"schema_version": 2}'::jsonb)) $$;
SELECT version, state FROM es_execute('door-1', 'last_of'::regproc, '{}', 'names'::regproc);
-- An upcaster that fails names the event; a type's reducer gets upcast data, too.
CREATE SCHEMA door;
CREATE FUNCTION door.apply_opened(state jsonb, data jsonb) RETURNS jsonb LANGUAGE sql AS 'SELECT data';
SELECT state FROM es_state('door-1', es_reducer('door'), at_version => 1);
CREATE OR REPLACE FUNCTION opened_1(data jsonb) RETURNS jsonb LANGUAGE sql AS 'SELECT NULL::jsonb';
SELECT * FROM es_state('door-1', 'names'::regproc);
SELECT es_define_upcaster('opened', 1, NULL);
SELECT forged(), saved();

-- An event is rewritten: the snapshots of its stream are deleted, and no others.
SELECT version FROM es_append_batch('door-2', 'none', '[{"type": "opened", "data": {"by": "Dan"}}, {"type": "opened", "data": {"by": "Eve"}}]');
SELECT * FROM es_state('door-2', 'names'::regproc);
SELECT es_rewrite(id, '{"by": "somebody"}') > 0 AS rewritten FROM es_load('door-1', 0, 1);
SELECT stream, version FROM es_snapshots ORDER BY 1, 2;
SELECT state FROM es_state('door-1', 'names'::regproc);
SELECT state FROM es_state('door-2', 'names'::regproc);

SET client_min_messages = warning;
DROP EXTENSION eventstore CASCADE;
DROP SCHEMA door CASCADE;
DROP FUNCTION saved, forged, opened_1, last_of;
