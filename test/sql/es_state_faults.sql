-- Faults that folds and commands once had.
CREATE EXTENSION eventstore;

-- Data and states that are stored out of line.
SELECT count(*) FROM es_append_batch('big-1', 'none', ARRAY['x', 'x'],
    ARRAY(SELECT jsonb_build_object('n', n, 'text', (SELECT string_agg(md5(n || ' ' || i), '') FROM generate_series(1, 375) i)) FROM generate_series(1, 2) n));
SELECT s.version, s.state = (SELECT data FROM es_load('big-1', 1)) AS last FROM es_state('big-1', 'es_last'::regproc) s;
SELECT s.version, s.state = (SELECT data FROM es_load('big-1', 1)) AS merged FROM es_state('big-1', 'es_merge'::regproc) s;
SELECT es_snapshot('big-1', 'es_merge'::regproc);
SELECT s.state = (SELECT data FROM es_load('big-1', 1)) AS kept FROM es_state('big-1', 'es_merge'::regproc) s;
CREATE FUNCTION decide_big(state jsonb, command jsonb) RETURNS jsonb LANGUAGE sql AS $$
    SELECT jsonb_build_array(jsonb_build_object('type', 't', 'data',
        jsonb_build_object('text', (SELECT string_agg(md5(i::text), '') FROM generate_series(1, 375) i)))) $$;
SELECT version, length(state->>'text') FROM es_execute('big-2', 'decide_big'::regproc, '{}', 'es_merge'::regproc);

-- Thousands of sets of keys.
SELECT count(*) FROM (SELECT es_append_batch('keys-1', 'any', array_agg('x'::text), array_agg(jsonb_build_object('key_' || i, i, 'last', i)))
                        FROM generate_series(1, 3000) i GROUP BY i / 1000) batches;
SET eventstore.snapshot_every = 0;
SELECT s.state = (SELECT jsonb_object_agg(key, value ORDER BY version) FROM es_load('keys-1'), jsonb_each(data)) AS same
  FROM es_state('keys-1', 'es_merge'::regproc) s;
RESET eventstore.snapshot_every;

-- A repeated command returns its first result, also when events after the first have ids of their own.
CREATE FUNCTION three(state jsonb, command jsonb) RETURNS jsonb LANGUAGE sql AS $$
    SELECT '[{"type": "a", "data": {"a": 1}}, {"type": "b", "data": {"b": 1}, "id": "00000000-0000-7000-8000-000000000001", "metadata": {"command_id": "x"}},
             {"type": "c", "data": {"c": 1}}]'::jsonb $$;
SELECT version, state, events FROM es_execute('three-1', 'three'::regproc, '{}', 'es_merge'::regproc, '{"command_id": "00000000-0000-4000-8000-00000000000A"}');
SELECT version FROM es_append('three-1', 'any', 'd', '{"d": 1}');
SELECT version, position = (SELECT position FROM es_load('three-1', 2, 1)) AS same, state, events
  FROM es_execute('three-1', 'three'::regproc, '{}', 'es_merge'::regproc, '{"command_id": "{00000000-0000-4000-8000-00000000000a}"}');
SELECT version, metadata FROM es_load('three-1');
-- A command that was decided outside the database, with the same ids, is the same command.
SELECT version FROM es_append_batch('three-2', 'none', jsonb_build_array(
    jsonb_build_object('type', 'a', 'data', '{"a": 1}'::jsonb, 'id', es_uuid5('00000000-0000-4000-8000-00000000000a', 'three-2:1')),
    jsonb_build_object('type', 'b', 'data', '{"b": 1}'::jsonb, 'id', es_uuid5('00000000-0000-4000-8000-00000000000a', 'three-2:2'))));
SELECT version FROM es_append('three-2', 'any', 'd', '{"d": 1}');
SELECT version, state, events FROM es_execute('three-2', 'three'::regproc, '{}', 'es_merge'::regproc, '{"command_id": "00000000-0000-4000-8000-00000000000a"}');
-- The first must not have one, nor one of a composite key.
CREATE FUNCTION own(state jsonb, command jsonb) RETURNS jsonb LANGUAGE sql AS
    'SELECT ''[{"type": "a", "id": "00000000-0000-7000-8000-000000000002"}, {"type": "b"}]''::jsonb';
SELECT * FROM es_execute('own-1', 'own'::regproc, '{}', 'es_merge'::regproc, '{"command_id": "00000000-0000-4000-8000-00000000000b"}');
SELECT es_define_event_type('key', composite_key => '{k}');
CREATE FUNCTION given(state jsonb, command jsonb) RETURNS jsonb LANGUAGE sql AS 'SELECT command';
SELECT * FROM es_execute('own-1', 'given'::regproc, '[{"type": "key", "data": {"k": 1}}]', 'es_merge'::regproc,
                         '{"command_id": "00000000-0000-4000-8000-00000000000b"}');
SELECT es_stream_version('own-1');
-- Without command_id the events' own ids make it a retry, which returns the first result, too.
SELECT version, state, events FROM es_execute('own-2', 'given'::regproc, '[{"type": "key", "data": {"k": 1}}]', 'es_merge'::regproc);
SELECT version FROM es_append('own-2', 'any', 'more', '{"m": 1}');
SELECT version, position = (SELECT position FROM es_load('own-2', 0, 1)) AS same, state, events
  FROM es_execute('own-2', 'given'::regproc, '[{"type": "key", "data": {"k": 1}}]', 'es_merge'::regproc);

-- A decider that has appended to its own stream, whatever it returns.
CREATE FUNCTION aside(state jsonb, command jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
    PERFORM es_append('aside-1', 'any', 'aside', '{"b": 1}');
    RETURN command;
END $$;
SELECT * FROM es_execute('aside-1', 'aside'::regproc, '[]', 'es_merge'::regproc);
SELECT * FROM es_execute('aside-1', 'aside'::regproc, '[{"type": "a"}]', 'es_merge'::regproc);
SELECT es_stream_version('aside-1');

-- A reducer that is replaced while it folds, and then restored: no mixed state is saved.
SET eventstore.snapshot_every = 3;
CREATE FUNCTION swapped(state jsonb, event es_recorded_event) RETURNS jsonb LANGUAGE plpgsql AS $$ BEGIN
    IF event.version = 2 AND current_setting('my.swap') = 'on' THEN
        EXECUTE $q$ CREATE OR REPLACE FUNCTION swapped(state jsonb, event es_recorded_event) RETURNS jsonb LANGUAGE plpgsql AS 'BEGIN RETURN ''"poison"''; END' $q$;
    END IF;
    RETURN event.version;
END $$;
SELECT pg_get_functiondef('swapped'::regproc) AS definition \gset
SELECT version FROM es_append_batch('r-1', 'none', array_fill('x'::text, ARRAY[5]), array_fill('{}'::jsonb, ARRAY[5]));
SET my.swap = 'on';
SET client_min_messages = error;     -- PL/pgSQL warns
SELECT * FROM es_state('r-1', 'swapped'::regproc);
:definition;
RESET client_min_messages;
SET my.swap = 'off';
SELECT * FROM es_state('r-1', 'swapped'::regproc);

-- Each initial state has snapshots of its own.
CREATE FUNCTION data_of(state jsonb, event es_recorded_event) RETURNS jsonb LANGUAGE sql AS 'SELECT event.data';
SELECT state FROM es_state('r-1', 'data_of'::regproc, '{}');
SELECT state FROM es_state('r-1', 'data_of'::regproc, NULL);
SELECT initial = 0 AS of_null, version FROM es_snapshots WHERE reducer LIKE '%.data_of(%' ORDER BY id;

-- Settings of the session are not part of a reducer.
CREATE FUNCTION since(state jsonb, event es_recorded_event) RETURNS jsonb LANGUAGE sql
BEGIN ATOMIC
    SELECT to_jsonb((event).recorded_at > timestamptz '2026-01-01 00:00+00');
END;
SELECT es_snapshot('r-1', 'since(jsonb, es_recorded_event)');
SET timezone = 'Asia/Tokyo';
SET datestyle = 'German';
SET quote_all_identifiers = on;
SELECT es_snapshot('r-1', 'since(jsonb, es_recorded_event)');
SELECT count(*) FROM es_snapshots WHERE reducer LIKE '%since%';
RESET timezone;
RESET datestyle;
RESET quote_all_identifiers;

-- Row security that hides what the command itself appends.
CREATE ROLE regress_es_half;
GRANT SELECT ON es_events TO regress_es_half;
GRANT EXECUTE ON FUNCTION es_execute TO regress_es_half;
CREATE POLICY half ON es_events TO regress_es_half USING (type <> 'secret');
ALTER TABLE es_events ENABLE ROW LEVEL SECURITY;
SET ROLE regress_es_half;
SELECT version, state FROM es_execute('half-1', 'given'::regproc, '[{"type": "open", "data": {"a": 1}}]', 'es_merge'::regproc);
SELECT * FROM es_execute('half-1', 'given'::regproc, '[{"type": "secret"}]', 'es_merge'::regproc);
RESET ROLE;
SELECT es_stream_version('half-1');
SELECT version FROM es_execute('half-2', 'given'::regproc, '[{"type": "open"}, {"type": "secret"}]', 'es_merge'::regproc,
                               '{"command_id": "00000000-0000-4000-8000-00000000000c"}');
SET ROLE regress_es_half;
SELECT * FROM es_execute('half-2', 'given'::regproc, '[]', 'es_merge'::regproc, '{"command_id": "00000000-0000-4000-8000-00000000000c"}');
RESET ROLE;
DROP POLICY half ON es_events;
ALTER TABLE es_events DISABLE ROW LEVEL SECURITY;
DROP OWNED BY regress_es_half;
DROP ROLE regress_es_half;

-- A reducer that is not called raises no error.
SELECT * FROM es_state('nobody', 'es_merge'::regproc, '5');

SET client_min_messages = warning;
DROP EXTENSION eventstore CASCADE;
DROP FUNCTION decide_big, three, own, given, aside;
