-- es_execute: a decider turns a command into events, on a state that no other
-- transaction can change meanwhile.
CREATE EXTENSION eventstore;
SET timezone = 'UTC';

CREATE FUNCTION code_of(statement text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE statement;
    RETURN NULL;
EXCEPTION WHEN OTHERS THEN
    RETURN SQLSTATE;
END $$;

-- Does what the command says: {"events": [...]}, {"count": n}, {"raise": "..."}.
CREATE FUNCTION decide(state jsonb, command jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
    IF command ? 'raise' THEN
        RAISE EXCEPTION '%', command->>'raise' USING ERRCODE = 'REFUS', DETAIL = format('The state is %s.', state), HINT = 'Try another one.';
    END IF;
    IF command ? 'count' THEN
        RETURN (SELECT coalesce(jsonb_agg(jsonb_build_object('type', 'counted', 'data', jsonb_build_object('n', coalesce((state->>'n')::int, 0) + i)) ORDER BY i), '[]')
                  FROM generate_series(1, (command->>'count')::int) i);
    END IF;
    RETURN NULLIF(command->'events', 'null');
END $$;
CREATE FUNCTION run(stream text, command jsonb, metadata jsonb DEFAULT NULL, expected es_expected_version DEFAULT 'any',
                    OUT version bigint, OUT "position" bigint, OUT state jsonb, OUT events int) LANGUAGE sql AS $$
    SELECT * FROM es_execute(stream, 'decide'::regproc, command, 'es_merge'::regproc, metadata, expected)
$$;
\set SHOW_CONTEXT never

--
-- What comes out, and what comes in
--
SELECT * FROM es_execute('a-1', 'decide(jsonb, jsonb)', '{"count": 2}', 'es_merge(jsonb, es_recorded_event)');
SELECT version, type, data, metadata, occurred_at FROM es_load('a-1');
SELECT * FROM run('a-1', '{"count": 1}');
-- Nothing to do: the state as it is.
SELECT * FROM run('a-1', '{"events": []}');
SELECT * FROM run('a-2', '{"events": []}');
SELECT * FROM run('a-2', '{"count": 0}', '{"correlation_id": "x"}', 'none');
SELECT es_stream_version('a-2');
-- The decider gets the state, {} for a new stream, and the command.
CREATE FUNCTION show(state jsonb, command jsonb) RETURNS jsonb LANGUAGE sql AS $$ SELECT jsonb_build_array(jsonb_build_object('type', 'shown', 'data', jsonb_build_object('state', state, 'command', command))) $$;
SELECT state FROM es_execute('a-3', 'show'::regproc, '[1, "two", null]', 'es_last'::regproc);
-- From an initial state on, which the decider gets, as es_state has it.
CREATE FUNCTION tell(state jsonb, command jsonb) RETURNS jsonb LANGUAGE sql AS $$ SELECT jsonb_build_array(jsonb_build_object('type', 'told', 'data', jsonb_build_object('told', coalesce(state, '"nothing"')))) $$;
SELECT version, state FROM es_execute('i-1', 'tell', '{}', 'es_merge', initial => '{"limit": 5}');
SELECT version, state FROM es_execute('i-1', 'tell', '{}', 'es_merge', initial => '{"limit": 6}');
SELECT version, state FROM es_state('i-1', 'es_merge', '{"limit": 6}');
SELECT version, state FROM es_execute('i-2', 'tell', '{}', 'es_last', initial => NULL);
SELECT version, state FROM es_execute('i-3', 'tell', '{}', 'es_last');
-- A repeated command has the state after it, from the same initial one.
SELECT version, state FROM es_execute('i-1', 'tell', '{}', 'es_merge', '{"command_id": "00000000-0000-7000-8000-0000000000c1"}', initial => '{"limit": 7}');
SELECT version, state FROM es_execute('i-1', 'tell', '{}', 'es_merge', '{"command_id": "00000000-0000-7000-8000-0000000000c1"}', initial => '{"limit": 7}');
DROP FUNCTION tell;
SELECT state FROM es_execute('a-3', 'show'::regproc, '"x"', 'es_last'::regproc);
SELECT state FROM es_execute('a-4', 'show'::regproc, 'null', 'es_last'::regproc);
-- All keys of an event.
SELECT * FROM run('a-5', '{"events": [{"type": "t", "data": [1], "metadata": {"by": "me"}, "id": "00000000-0000-7000-8000-000000000001", "occurred_at": "2020-01-01T00:00:00Z"}]}') r (v, p, s, e);
SELECT * FROM es_execute('a-5', 'decide'::regproc, '{"events": [{"type": "t", "data": [1], "metadata": {"by": "me"}, "id": "00000000-0000-7000-8000-000000000001", "occurred_at": "2020-01-01T00:00:00Z"}]}', 'es_last'::regproc);
SELECT version, type, data, metadata, id, occurred_at FROM es_load('a-5');
-- A null state, for a strict decider.
CREATE FUNCTION gone(state jsonb, event es_recorded_event) RETURNS jsonb LANGUAGE sql AS 'SELECT NULL::jsonb';
CREATE FUNCTION strict_one(state jsonb, command jsonb) RETURNS jsonb LANGUAGE sql STRICT AS $$ SELECT '[{"type": "t"}]'::jsonb $$;
SELECT version, state IS NULL AS gone, events FROM es_execute('a-6', 'strict_one'::regproc, '{}', 'gone'::regproc);
SELECT es_execute('a-6', 'strict_one'::regproc, '{}', 'gone'::regproc);
SELECT version, state, events FROM es_execute('a-6', 'show'::regproc, '{}', 'gone'::regproc);
SELECT data FROM es_load('a-6', 1);

--
-- Refused: nothing is stored
--
SELECT count(*), max(position), (SELECT last_value FROM es_position) AS drawn FROM es_events \gset before_
SELECT run('a-1', '{"raise": "no"}');
SELECT run('a-9', '{"raise": "no"}');
SELECT run('a-1', '{}');
SELECT run('a-1', '{"events": {}}');
SELECT run('a-1', '{"events": {"type": "t"}}');
SELECT run('a-1', '{"events": "x"}');
SELECT run('a-1', '{"events": 7}');
\set SHOW_CONTEXT errors
SELECT es_execute('a-1', 'decide'::regproc, '{"events": [{"type": "t"}, 5]}', 'es_merge'::regproc);
SELECT es_execute('a-1', 'decide'::regproc, '{"events": [{"type": "t"}, {"type": "u"}, {}]}', 'es_merge'::regproc);
SELECT es_execute('a-1', 'decide'::regproc, '{"events": [null]}', 'es_merge'::regproc);
SELECT es_execute('a-1', 'decide'::regproc, '{"events": [{"type": ""}]}', 'es_merge'::regproc);
SELECT es_execute('a-1', 'decide'::regproc, '{"events": [{"type": "t", "metadata": []}]}', 'es_merge'::regproc);
SELECT es_execute('a-1', 'decide'::regproc, '{"events": [{"type": "t", "id": "x"}]}', 'es_merge'::regproc);
SELECT es_execute('a-1', 'decide'::regproc, '{"events": [{"type": "t", "stream": "x"}]}', 'es_merge'::regproc);
SELECT es_execute('a-1', 'decide'::regproc, '{"events": [{"type": "t", "id": "00000000-0000-7000-8000-000000000002"}, {"type": "t", "id": "00000000-0000-7000-8000-000000000002"}]}', 'es_merge'::regproc);
SELECT es_execute('a-1', 'decide'::regproc, '{"events": [{"type": "t", "id": "00000000-0000-7000-8000-000000000001"}]}', 'es_merge'::regproc);
\set SHOW_CONTEXT never
-- Arguments.
SELECT es_execute(NULL, 'decide'::regproc, '{}', 'es_merge'::regproc);
SELECT es_execute('a-1', NULL, '{}', 'es_merge'::regproc);
SELECT es_execute('a-1', 'decide'::regproc, NULL, 'es_merge'::regproc);
SELECT es_execute('a-1', 'decide'::regproc, '{}', NULL);
SELECT es_execute('a-1', 'decide'::regproc, '{}', 'es_merge'::regproc, expected => NULL);
SELECT es_execute('', 'decide'::regproc, '{}', 'es_merge'::regproc);
SELECT es_execute('a-1', 'decide'::regproc, '{"count": 1}', 'es_merge'::regproc, '[]');
SELECT es_execute('a-1', 'decide'::regproc, '{"count": 1}', 'es_merge'::regproc, '"x"');
CREATE FUNCTION w_type(state json, command jsonb) RETURNS jsonb LANGUAGE sql AS 'SELECT NULL::jsonb';
CREATE FUNCTION w_result(state jsonb, command jsonb) RETURNS jsonb[] LANGUAGE sql AS 'SELECT NULL::jsonb[]';
CREATE FUNCTION w_set(state jsonb, command jsonb) RETURNS SETOF jsonb LANGUAGE sql AS 'SELECT NULL::jsonb';
SELECT es_execute('a-1', 'w_type'::regproc, '{}', 'es_merge'::regproc);
SELECT f, code_of(format('SELECT es_execute(''a-1'', %L::regproc, ''{}'', ''es_merge''::regproc)', f)) FROM unnest(ARRAY['w_type', 'w_result', 'w_set', 'es_merge']) f;
SELECT code_of($$ SELECT es_execute('a-1', 0, '{}', 'es_merge'::regproc) $$);
-- A reducer that fails, on stored events and on new ones.
CREATE FUNCTION r_bad(state jsonb, event es_recorded_event) RETURNS jsonb LANGUAGE plpgsql AS $$ BEGIN IF event.type = 'bad' THEN RAISE 'bad'; END IF; RETURN state; END $$;
\set SHOW_CONTEXT errors
SELECT es_execute('a-1', 'decide'::regproc, '{"events": [{"type": "good"}, {"type": "bad"}]}', 'r_bad'::regproc);
SELECT es_execute('a-1', 'decide'::regproc, '{"events": [{"type": "t", "data": 5}]}', 'es_merge'::regproc);
\set SHOW_CONTEXT never
SELECT count(*) = :before_count AS none, max(position) = :before_max AS the_same FROM es_events;
SELECT es_stream_version('a-1'), es_stream_version('a-9');

--
-- Expected versions
--
SELECT * FROM run('b-1', '{"count": 1}', expected => 'exists');
SELECT * FROM run('b-1', '{"count": 1}', expected => 1);
SELECT version FROM run('b-1', '{"count": 1}', expected => 'none');
SELECT version FROM run('b-1', '{"count": 1}', expected => 'none');
SELECT version FROM run('b-1', '{"count": 1}', expected => 'exists');
SELECT version FROM run('b-1', '{"count": 3}', expected => 2);
SELECT version FROM run('b-1', '{"count": 1}', expected => 2);
SELECT version FROM run('b-1', '{"count": 1}', expected => 1000000);
SELECT version FROM run('b-1', '{"count": 0}', expected => 4);
SELECT version FROM run('b-1', '{"count": 0}', expected => 5);
SELECT version FROM run('b-1', '{"count": 1}', expected => 'any');
-- It is compared before the decider is called.
SELECT code_of($$ SELECT run('b-1', '{"raise": "no"}', expected => 1) $$), code_of($$ SELECT run('b-1', '{"raise": "no"}', expected => 6) $$);

--
-- Metadata: the event's own first, then the argument, then what the command has
--
SELECT version FROM run('c-1', '{"events": [{"type": "t"}, {"type": "t", "metadata": {"user": "own", "correlation_id": "own", "more": 1}}], "correlation_id": "command", "causation_id": "command", "user": "command"}',
    '{"user": "argument", "causation_id": "argument", "via": "argument"}');
SELECT metadata FROM es_load('c-1');
SELECT version FROM run('c-2', '{"events": [{"type": "t"}, {"type": "t", "metadata": {}}], "correlation_id": "command", "causation_id": null}');
SELECT metadata FROM es_load('c-2');
SELECT version FROM run('c-3', '{"events": [{"type": "t"}, {"type": "t", "metadata": {"a": 1}}, {"type": "t", "metadata": null}]}');
SELECT metadata FROM es_load('c-3');
SELECT version FROM run('c-4', '{"events": [{"type": "t"}], "correlation_id": {"a": [1, 2]}, "causation_id": 7}', '{}');
SELECT metadata FROM es_load('c-4');
SELECT version FROM run('c-5', '{"events": [{"type": "t", "metadata": {"correlation_id": null}}], "correlation_id": "command"}');
SELECT metadata FROM es_load('c-5');
-- A command that is not an object has none.
SELECT version FROM es_execute('c-6', 'show'::regproc, '["correlation_id"]', 'es_last'::regproc, '{"a": 1}');
SELECT metadata FROM es_load('c-6');

--
-- A command that has an id
--
SELECT version, state, events FROM run('d-1', '{"count": 2}', '{"command_id": "00000000-0000-4000-8000-000000000001", "by": "me"}');
SELECT id = es_uuid5('00000000-0000-4000-8000-000000000001', 'd-1:' || version) AS id, metadata FROM es_load('d-1');
SELECT version, state, events FROM run('d-1', '{"count": 3}', '{"command_id": "00000000-0000-4000-8000-000000000002"}');
SELECT version FROM es_append('d-1', 5, 'appended', '{"n": 100}');
-- Again: the first result of each, whatever is expected, and whatever the decider would return now.
SELECT r.version, r.position = (SELECT e.position FROM es_load('d-1') e WHERE e.version = r.version) AS position, r.state, r.events
  FROM run('d-1', '{"count": 2}', '{"command_id": "00000000-0000-4000-8000-000000000001"}') r;
SELECT version, state, events FROM run('d-1', '{"raise": "no"}', '{"command_id": "00000000-0000-4000-8000-000000000001"}', 'none');
SELECT version, state, events FROM run('d-1', '{"count": 9}', '{"command_id": "00000000-0000-4000-8000-000000000002"}', 1000000);
SELECT es_stream_version('d-1');
-- In capitals, in braces, it is the same UUID.
SELECT version, events FROM run('d-1', '{"count": 2}', '{"command_id": "{00000000-0000-4000-8000-000000000002}"}');
-- Another stream, another command; a stream whose name looks like the first one's.
SELECT version, state, events FROM run('d-2', '{"count": 2}', '{"command_id": "00000000-0000-4000-8000-000000000001"}');
SELECT version, state, events FROM run('d-1:1', '{"count": 1}', '{"command_id": "00000000-0000-4000-8000-000000000001"}');
SELECT version, state, events FROM run('d-1', '{"count": 1}', '{"command_id": "00000000-0000-4000-8000-000000000003"}');
-- It had nothing to do, or was refused: it is decided again.
SELECT version, state, events FROM run('d-3', '{"count": 0}', '{"command_id": "00000000-0000-4000-8000-000000000004"}');
SELECT code_of($$ SELECT run('d-3', '{"raise": "no"}', '{"command_id": "00000000-0000-4000-8000-000000000004"}') $$);
SELECT version, state, events FROM run('d-3', '{"count": 1}', '{"command_id": "00000000-0000-4000-8000-000000000004"}');
-- In one transaction, and after a rollback.
BEGIN;
SELECT version, events FROM run('d-4', '{"count": 2}', '{"command_id": "00000000-0000-4000-8000-000000000005"}');
SELECT version, events FROM run('d-4', '{"count": 5}', '{"command_id": "00000000-0000-4000-8000-000000000005"}');
SAVEPOINT a;
SELECT version, events FROM run('d-4', '{"count": 1}', '{"command_id": "00000000-0000-4000-8000-000000000006"}');
ROLLBACK TO a;
SELECT version, events FROM run('d-4', '{"count": 3}', '{"command_id": "00000000-0000-4000-8000-000000000006"}');
COMMIT;
-- One event.
SELECT version, events FROM run('d-7', '{"count": 1}', '{"command_id": "00000000-0000-4000-8000-000000000007"}');
SELECT version, events FROM run('d-7', '{"count": 1}', '{"command_id": "00000000-0000-4000-8000-000000000007"}', 'none');
-- A snapshot that is beyond the first result is not used for it.
SELECT es_snapshot('d-4', 'es_merge'::regproc);
SELECT version, state, events FROM run('d-4', '{}', '{"command_id": "00000000-0000-4000-8000-000000000005"}');
-- Not a UUID; null is none.
SELECT run('d-5', '{"count": 1}', '{"command_id": "one"}');
SELECT run('d-5', '{"count": 1}', '{"command_id": 1}');
SELECT run('d-5', '{"count": 1}', '{"command_id": ["00000000-0000-4000-8000-000000000001"]}');
SELECT version, events FROM run('d-5', '{"count": 1}', '{"command_id": null}');
SELECT version, events FROM run('d-5', '{"count": 1}', '{"command_id": null}');
-- That of the command itself, or of an event, does not count.
SELECT version, events FROM run('d-6', '{"count": 1, "command_id": "one"}');
SELECT version, events FROM run('d-6', '{"events": [{"type": "t", "metadata": {"command_id": "one"}}]}');
SELECT metadata FROM es_load('d-6');

--
-- Deciders that do more than decide
--
CREATE FUNCTION appends(state jsonb, command jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
    PERFORM es_append(command->>'to', 'any', 'aside', '{"aside": true}');
    RETURN command->'events';
END $$;
-- To its own stream: even if it appends nothing else, the state that it saw is stale.
SELECT es_execute('e-1', 'appends'::regproc, '{"to": "e-1", "events": [{"type": "t"}]}', 'es_merge'::regproc);
SELECT es_stream_version('e-1');
SELECT version, state, events FROM es_execute('e-1', 'appends'::regproc, '{"to": "e-2", "events": [{"type": "t", "data": {"n": 1}}]}', 'es_merge'::regproc);
SELECT stream, version, type FROM es_events WHERE stream LIKE 'e-%' ORDER BY position;
-- To another one, and then it is refused: that event is gone as well.
SELECT code_of($$ SELECT es_execute('e-1', 'appends'::regproc, '{"to": "e-3", "events": [{}]}', 'es_merge'::regproc) $$);
SELECT es_stream_version('e-3');
-- A command for another stream.
CREATE FUNCTION transfers(state jsonb, command jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
    RETURN jsonb_build_array(jsonb_build_object('type', 'sent', 'data', jsonb_build_object('got', (SELECT to_jsonb(x) - 'position' FROM es_execute(command->>'to', 'decide'::regproc, '{"count": 1}', 'es_merge'::regproc) x))));
END $$;
SELECT version, state, events FROM es_execute('e-4', 'transfers'::regproc, '{"to": "e-5"}', 'es_merge'::regproc);
SELECT version, state, events FROM es_execute('e-4', 'transfers'::regproc, '{"to": "e-5"}', 'es_merge'::regproc);
SELECT code_of($$ SELECT es_execute('e-4', 'transfers'::regproc, '{"to": "e-4"}', 'es_merge'::regproc) $$);
SELECT es_stream_version('e-4'), es_stream_version('e-5');
-- One that reads for itself sees what is stored, nothing of its own.
CREATE FUNCTION looks(state jsonb, command jsonb) RETURNS jsonb LANGUAGE sql AS $$
    SELECT jsonb_build_array(jsonb_build_object('type', 'looked', 'data', jsonb_build_object('version', es_stream_version(command #>> '{}'), 'state', (SELECT s.version FROM es_state(command #>> '{}', 'es_last(jsonb, es_recorded_event)') s)))) $$;
SELECT state FROM es_execute('e-6', 'looks'::regproc, '"e-6"', 'es_last'::regproc);
SELECT state FROM es_execute('e-6', 'looks'::regproc, '"e-6"', 'es_last'::regproc);
-- A projection that is part of the append, and fails.
CREATE TABLE seen (version bigint CHECK (version < 3));
CREATE FUNCTION note(event es_recorded_event) RETURNS void LANGUAGE sql AS 'INSERT INTO seen VALUES (event.version)';
SELECT es_create_projection('sync', 'note(es_recorded_event)', category => 'f', mode => 'sync');
SELECT version FROM run('f-1', '{"count": 2}');
SELECT code_of($$ SELECT run('f-1', '{"count": 1}') $$);
SELECT version, state FROM run('f-1', '{"count": 0}');
SELECT array_agg(version) FROM seen;
SELECT es_drop_projection('sync');

--
-- Transactions
--
BEGIN;
SELECT version FROM es_append_batch('g-1', 'none', '[{"type": "t", "data": {"n": 10}}, {"type": "t", "data": {"n": 20}}]');
SELECT version, state FROM run('g-1', '{"count": 2}');
SELECT version FROM es_append('g-1', 4, 't', '{"n": 50}');
SAVEPOINT a;
SELECT version, state FROM run('g-1', '{"count": 1}');
ROLLBACK TO a;
SELECT version, state FROM run('g-1', '{"count": 0}');
SELECT version, state FROM run('g-1', '{"count": 1}');
COMMIT;
SELECT version, data FROM es_load('g-1');
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT version, state FROM run('g-1', '{"count": 1}');
SELECT version, state FROM run('g-1', '{"count": 1}');
COMMIT;
BEGIN ISOLATION LEVEL SERIALIZABLE;
SELECT version, state FROM run('g-1', '{"count": 1}');
ROLLBACK;
BEGIN TRANSACTION READ ONLY;
SELECT run('g-1', '{"count": 0}');
ROLLBACK;
-- In one statement, each on the result of the one before.
SELECT n, (run('g-2', '{"count": 1}')).version FROM generate_series(1, 3) n;
SELECT data FROM es_load('g-2');
-- Caught in a block, the transaction goes on.
DO $$
BEGIN
    BEGIN
        PERFORM run('g-3', '{"events": [{"type": "t", "data": 5}]}');
    EXCEPTION WHEN invalid_parameter_value THEN
        RAISE NOTICE 'refused';
    END;
    PERFORM run('g-3', '{"count": 1}');
END $$;
SELECT es_stream_version('g-3');
-- 1,100 streams, three times each.
BEGIN;
SELECT count(*), min(r.version), max(r.version), max((r.state->>'n')::int) FROM generate_series(0, 3299) n, run('m-' || n % 1100, '{"count": 1}') r;
COMMIT;
SELECT count(*), count(DISTINCT stream) FROM es_read_category('m');
-- 300 commands on one stream, with snapshots saved on the way.
SELECT max(r.version), count(*) FROM generate_series(1, 300) n, run('g-4', jsonb_build_object('count', 2, 'n', n)) r WHERE (r.state->>'n')::int = 2 * n AND r.version = 2 * n;
SELECT array_agg(version ORDER BY version) FROM es_snapshots WHERE stream = 'g-4';
-- Many events at once.
SELECT version, events FROM run('g-5', '{"count": 5000}');

--
-- Privileges
--
CREATE ROLE regress_es_user;
SET ROLE regress_es_user;
SELECT es_execute('p-1', 'decide'::regproc, '{"count": 1}', 'es_merge'::regproc);
RESET ROLE;
GRANT EXECUTE ON FUNCTION es_execute TO regress_es_user;
SET ROLE regress_es_user;
SELECT es_execute('p-1', 'decide'::regproc, '{"count": 1}', 'es_merge'::regproc);
RESET ROLE;
GRANT SELECT ON es_events TO regress_es_user;
SET ROLE regress_es_user;
SELECT version, state FROM es_execute('p-1', 'decide'::regproc, '{"count": 1}', 'es_merge'::regproc);
-- EXECUTE on es_execute is enough, es_append is another matter; the decider runs as the caller.
SELECT code_of($$ SELECT es_append('p-1', 'any', 't') $$);
SELECT code_of($$ SELECT es_execute('p-1', 'appends'::regproc, '{"to": "p-2", "events": []}', 'es_merge'::regproc) $$);
RESET ROLE;
REVOKE EXECUTE ON FUNCTION decide FROM PUBLIC;
SET ROLE regress_es_user;
SELECT es_execute('p-1', 'decide'::regproc, '{"count": 1}', 'es_merge'::regproc);
RESET ROLE;
GRANT EXECUTE ON FUNCTION decide TO regress_es_user;
-- A role that may not see the whole stream must not decide on it; on one that it sees it may.
SELECT version FROM es_append_batch('p-1', 'any', '[{"type": "secret"}]');
CREATE POLICY not_all ON es_events TO regress_es_user USING (type <> 'secret');
ALTER TABLE es_events ENABLE ROW LEVEL SECURITY;
SELECT version FROM run('p-3', '{"count": 1}');
SELECT es_append('p-4', 'any', 'secret') IS NOT NULL AS appended;
SET ROLE regress_es_user;
SELECT es_execute('p-1', 'decide'::regproc, '{"count": 1}', 'es_merge'::regproc);
SELECT code_of($$ SELECT es_execute('p-4', 'decide'::regproc, '{"count": 1}', 'es_merge'::regproc, expected => 'none') $$);
SELECT version, state FROM es_execute('p-3', 'decide'::regproc, '{"count": 1}', 'es_merge'::regproc);
SELECT version, state FROM es_execute('p-5', 'decide'::regproc, '{"count": 1}', 'es_merge'::regproc, expected => 'none');
RESET ROLE;
ALTER TABLE es_events DISABLE ROW LEVEL SECURITY;
DROP POLICY not_all ON es_events;
SELECT stream, version, type FROM es_events WHERE stream LIKE 'p-%' ORDER BY stream, version;
DROP OWNED BY regress_es_user;
DROP ROLE regress_es_user;

SET client_min_messages = warning;
DROP EXTENSION eventstore CASCADE;
DROP FUNCTION code_of, decide, show, strict_one, w_type, w_result, w_set, appends, transfers, looks;
DROP TABLE seen;
