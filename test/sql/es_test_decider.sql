-- es_test_decider: a decision on given events, of which nothing is stored
CREATE EXTENSION eventstore;
CREATE SCHEMA app;
CREATE FUNCTION app.open(state jsonb, command jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
    IF state ? 'owner' THEN
        RAISE EXCEPTION 'the account is open' USING ERRCODE = 'ACC01', DETAIL = 'It belongs to ' || (state->>'owner') || '.';
    END IF;
    RETURN jsonb_build_array(jsonb_build_object('type', 'opened', 'data', jsonb_build_object('owner', command->>'owner')));
END $$;
CREATE FUNCTION app.put(state jsonb, command jsonb) RETURNS jsonb LANGUAGE sql AS $$
    SELECT jsonb_build_array(jsonb_build_object('type', 'put', 'data', jsonb_build_object('balance', coalesce((state->>'balance')::int, 0) + (command->>'amount')::int)))
$$;
-- what a reducer sees of an event
CREATE FUNCTION app.seen(state jsonb, event es_recorded_event) RETURNS jsonb LANGUAGE sql AS $$
    SELECT state || jsonb_build_array(jsonb_build_object('position', event.position, 'version', event.version, 'stream', event.stream,
        'type', event.type, 'data', event.data, 'metadata', event.metadata, 'tags', event.tags, 'body', encode(event.body, 'hex'),
        'has id', event.id IS NOT NULL, 'is new', event.recorded_at > now() - interval '1 h', 'occurred', event.occurred_at AT TIME ZONE 'UTC'))
$$;
\x on
-- It decides.
SELECT * FROM es_test_decider('es_merge', 'app.open', '[]', '{"owner": "Ann"}');
SELECT * FROM es_test_decider('es_merge', 'app.put', '[{"type": "opened", "data": {"owner": "Ann"}}, {"type": "put", "data": {"balance": 5}}]', '{"amount": 2}');
SELECT * FROM es_test_decider('es_merge', 'app.put', '[]', '{"amount": 2}', initial => '{"balance": 100}');
-- It refuses.
SELECT * FROM es_test_decider('es_merge', 'app.open', '[{"type": "opened", "data": {"owner": "Ann"}}]', '{"owner": "Bob"}');
-- Nothing to do.
CREATE FUNCTION app.idle(state jsonb, command jsonb) RETURNS jsonb LANGUAGE sql AS $$ SELECT '[]'::jsonb $$;
SELECT * FROM es_test_decider('es_merge', 'app.idle', '[{"type": "opened", "data": {"owner": "Ann"}}]', '{}');
-- A reducer sees each event as it would be stored.
SELECT jsonb_pretty(state) AS state, error FROM es_test_decider('app.seen', 'app.put',
    '[{"type": "a", "data": {"n": 1}, "metadata": {"m": 1}, "tags": ["t:2", "t:1"], "body": "YWI=", "occurred_at": "2020-01-02T03:04:05Z"}]',
    '{"amount": 2}', initial => '[]', stream => 'purse-7');
-- A schema's reducer
CREATE SCHEMA purse;
CREATE FUNCTION purse.apply_put(state jsonb, data jsonb) RETURNS jsonb LANGUAGE sql AS $$ SELECT state || data || '{"by": "schema"}' $$;
SELECT es_reducer('purse') AS reducer \gset
SELECT * FROM es_test_decider(:'reducer', 'app.put', '[{"type": "put", "data": {"balance": 5}}, {"type": "other", "data": {"balance": 7}}]', '{"amount": 2}');
-- Without a stream, each event names its own, or has it by its first tag, as for es_decide.
CREATE FUNCTION app.enrol(state jsonb, command jsonb) RETURNS jsonb LANGUAGE sql AS $$
    SELECT jsonb_build_array(jsonb_build_object('type', 'enrolled', 'tags', jsonb_build_array('course:1', 'student:2')),
                             jsonb_build_object('type', 'noted', 'stream', 'course-1')) $$;
SELECT jsonb_path_query_array(state, '$[*].stream') AS streams, jsonb_path_query_array(state, '$[*].version') AS versions,
       jsonb_path_query_array(state, '$[*].position') AS positions, error
  FROM es_test_decider('app.seen', 'app.enrol', '[{"type": "enrolled", "stream": "course-1"}, {"type": "enrolled", "stream": "course-2"}, {"type": "enrolled", "stream": "course-1"}]',
                       '{}', initial => '[]', stream => NULL);
-- What an append refuses, refuses the command.
SELECT es_define_event_type('opened', ARRAY['owner', 'since']);
SELECT * FROM es_test_decider('es_merge', 'app.open', '[]', '{"owner": "Ann"}');
CREATE FUNCTION app.returns(state jsonb, command jsonb) RETURNS jsonb LANGUAGE sql AS $$ SELECT nullif(command, 'null') $$;
\x off
SELECT v AS returned, t.events, t.error, t.sqlstate FROM unnest(ARRAY['null', '{}', '1', '[1]', '[{}]', '[{"type": ""}]', '[{"type": "es_own"}]', '[{"type": "t", "stream": "other-1"}]',
    '[{"type": "t", "data": 1}]', '[{"type": "t", "data": null}]', '[{"type": "t", "what": 1}]', '[{"type": "t", "id": "x"}]']::jsonb[]) v,
    es_test_decider('app.seen', 'app.returns', '[]', v, initial => '[]') t;
-- A given event that could not have been appended is an error of the test.
SELECT es_test_decider('es_merge', 'app.put', '[{"type": "opened", "data": {"owner": "Ann"}}]', '{}');
SELECT es_test_decider('es_merge', 'app.put', '[{"type": "x"}, {"kind": "y"}]', '{}');
SELECT es_test_decider('es_merge', 'app.put', '{}', '{}');
SELECT es_test_decider('es_merge', 'app.put', '[{"type": "x", "stream": "other-1"}]', '{}');
SELECT es_test_decider('es_merge', 'app.put', '[{"type": "x"}]', '{}', stream => NULL);
-- So is one of the reducer.
CREATE FUNCTION app.fails(state jsonb, event es_recorded_event) RETURNS jsonb LANGUAGE plpgsql AS $$ BEGIN RAISE 'no % here', event.type; END $$;
SELECT es_test_decider('app.fails', 'app.put', '[]', '{"amount": 1}');
SELECT es_test_decider('app.fails', 'app.put', '[{"type": "x"}]', '{"amount": 1}');
-- Arguments
SELECT es_test_decider(NULL::text, 'app.put', '[]', '{}');
SELECT es_test_decider('es_merge', NULL::text, '[]', '{}');
SELECT es_test_decider('es_merge', 'app.put', NULL, '{}');
SELECT es_test_decider('es_merge', 'app.put', '[]', NULL);
SELECT es_test_decider('es_merge', 'nothing', '[]', '{}');
SELECT es_test_decider('nothing', 'app.put', '[]', '{}');
SELECT es_test_decider('es_merge', 'app.put', '[]', '{}', stream => '');
SELECT es_test_decider('es_merge', 'app.put', '[]', '{}', stream => 'es_own');
SELECT state IS NULL AS null_state, error FROM es_test_decider('es_merge', 'app.put', '[]', '{"amount": 1}', initial => NULL);
-- Nothing is stored, not even by the decider; no position is drawn.
CREATE TABLE app.written (n int);
CREATE FUNCTION app.writes(state jsonb, command jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO app.written VALUES (1);
    PERFORM es_append('written-1', 'any', 'written');
    RETURN '[{"type": "decided"}]';
END $$;
SELECT es_test_decider('es_merge', 'app.put', '[]', '{"amount": 1}');
SELECT es_append('first-1', 'none', 'first');
SELECT events, error FROM es_test_decider('es_merge', 'app.writes', '[]', '{}');
SELECT (SELECT count(*) FROM app.written) AS written, (SELECT count(*) FROM es_events) AS events, (SELECT count(*) FROM es_snapshots) AS snapshots;
-- A read-only transaction will do.
BEGIN READ ONLY;
SELECT events, error FROM es_test_decider('es_merge', 'app.put', '[]', '{"amount": 1}');
ROLLBACK;
-- The same outcome as that of es_execute
SELECT es_drop_event_type('opened');
SELECT es_append_batch('account-1', 'none', '[{"type": "opened", "data": {"owner": "Ann"}}, {"type": "put", "data": {"balance": 5}}]');
SELECT t.state = e.state AS same FROM es_execute('account-1', 'app.put', '{"amount": 7}', 'es_merge') e,
    es_test_decider('es_merge', 'app.put', '[{"type": "opened", "data": {"owner": "Ann"}}, {"type": "put", "data": {"balance": 5}}]', '{"amount": 7}') t;
-- A given event of an older schema version is upcast.
CREATE FUNCTION app.up(data jsonb) RETURNS jsonb LANGUAGE sql IMMUTABLE RETURN jsonb_build_object('balance', data->'amount');
SELECT es_define_event_type('put', schema_version => 2);
SELECT es_define_upcaster('put', 1, 'app.up');
SELECT * FROM es_test_decider('es_merge', 'app.put', '[{"type": "put", "data": {"amount": 5}, "metadata": {"schema_version": 1}}, {"type": "other", "data": {"n": 1}}]', '{"amount": 2}');
-- Many given events
SELECT state, error FROM es_test_decider('es_merge', 'app.put', (SELECT jsonb_agg(jsonb_build_object('type', 't', 'data', jsonb_build_object('balance', i))) FROM generate_series(1, 20000) i), '{"amount": 1}');

DROP EXTENSION eventstore CASCADE;
DROP SCHEMA app, purse CASCADE;
