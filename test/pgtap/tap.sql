-- The extension eventstore_tap: its functions pass where they should, and fail where they should.
SET client_min_messages = warning;
CREATE SCHEMA tap;
CREATE EXTENSION eventstore_tap SCHEMA tap;
SELECT plan(32);
CREATE SCHEMA app;
CREATE FUNCTION app.open(state jsonb, command jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
    IF state ? 'owner' THEN RAISE EXCEPTION 'the account is open' USING ERRCODE = 'ACC01'; END IF;
    RETURN jsonb_build_array(jsonb_build_object('type', 'opened', 'data', command, 'tags', ARRAY['owner:' || (command->>'owner')]));
END $$;

-- The description, the outcome, and what is said of a failure: pgTAP's check_test, which counts 3 tests each.
SELECT check_test(tap.es_decides('es_merge', 'app.open', '[]', '{"owner": "Ann"}', '[{"type": "opened", "data": {"owner": "Ann"}}]'),
    true, 'es_decides', 'app.open decides', '');
SELECT check_test(tap.es_decides('es_merge', 'app.open', '[]', '{"owner": "Ann"}', '[{"type": "opened", "data": {"owner": "Ann"}, "tags": ["owner:Ann"]}]', 'opens'),
    true, 'es_decides with tags', 'opens', '');
SELECT check_test(tap.es_decides('es_merge', 'app.open', '[]', '{"owner": "Ann"}', '[{"type": "opened", "data": {"owner": "Ann"}, "tags": ["owner:Bob"]}]'),
    false, 'es_decides with other tags', 'app.open decides',
    E'        have decided: [{"data": {"owner": "Ann"}, "tags": ["owner:Ann"], "type": "opened"}]\n        want decided: [{"data": {"owner": "Ann"}, "tags": ["owner:Bob"], "type": "opened"}]');
SELECT check_test(tap.es_decides('es_merge', 'app.open', '[]', '{"owner": "Ann"}', '[{"type": "opened"}]'), false, 'es_decides with other data');
SELECT check_test(tap.es_decides('es_merge', 'app.open', '[]', '{"owner": "Ann"}', '[]'), false, 'es_decides without events');
SELECT check_test(tap.es_decides('es_merge', 'app.open', '[{"type": "opened", "data": {"owner": "Ann"}}]', '{"owner": "Bob"}', '[]'),
    false, 'es_decides of a refusal', 'app.open decides', E'        have refused: ACC01 the account is open\n        want decided: []');
SELECT check_test(tap.es_refuses('es_merge', 'app.open', '[{"type": "opened", "data": {"owner": "Ann"}}]', '{"owner": "Bob"}', 'ACC01', 'the account is open'),
    true, 'es_refuses', 'app.open refuses', '');
SELECT check_test(tap.es_refuses('es_merge', 'app.open', '[{"type": "opened", "data": {"owner": "Ann"}}]', '{"owner": "Bob"}', 'P0001'),
    false, 'es_refuses with another code', 'app.open refuses', E'        have refused: ACC01 the account is open\n        want refused: P0001');
SELECT check_test(tap.es_refuses('es_merge', 'app.open', '[]', '{"owner": "Bob"}'), false, 'es_refuses of a decision');

-- es_given and es_projects: a sync and an async projection, and one that fails.
CREATE TABLE app.owner (stream text PRIMARY KEY, name text NOT NULL);
SELECT es_create_projection('later', category => 'account', query => $$ INSERT INTO app.owner SELECT stream, data->>'owner' FROM new_events $$);
CREATE TABLE app.at_once (stream text PRIMARY KEY);
SELECT es_create_projection('at_once', category => 'account', mode => 'sync', query => $$ INSERT INTO app.at_once SELECT stream FROM new_events $$);
SELECT is(array_agg(line), ARRAY['# given: 1 events of stream "account-1", up to version 1'], 'es_given')
  FROM tap.es_given('account-1', '[{"type": "opened", "data": {"owner": "Ann"}}]') AS line;
SELECT is((SELECT version FROM es_last_event('account-1')), 1::bigint, 'it has appended');
SELECT check_test(tap.es_projects('later', 'account-2', '[{"type": "opened", "data": {"owner": "Bob"}}]',
    'SELECT * FROM app.owner ORDER BY stream', $$ VALUES ('account-1', 'Ann'), ('account-2', 'Bob') $$), true, 'es_projects');
SELECT check_test(tap.es_projects('later', 'account-3', '[{"type": "opened", "data": {"owner": "Cid"}}]', 'SELECT count(*) FROM app.owner', 'VALUES (2::bigint)'),
    false, 'es_projects of something else');
SELECT check_test(tap.es_projects('at_once', 'account-4', '[{"type": "opened", "data": {"owner": "Dan"}}]', 'SELECT count(*) FROM app.at_once', 'VALUES (4::bigint)'),
    true, 'es_projects of a sync projection');
SELECT check_test(tap.es_projects('later', 'account-5', '[{"type": "opened"}]', 'SELECT 1', 'VALUES (1)'),
    false, 'es_projects of one that fails', 'later projects', 'it has failed: null value in column "name"', true);
SELECT check_test(tap.es_projects('nothing', 'account-6', '[{"type": "opened"}]', 'SELECT 1', 'VALUES (1)'),
    false, 'es_projects of none', 'nothing projects', 'there is no projection "nothing"', true);
SELECT * FROM finish();

DROP EXTENSION eventstore CASCADE;
DROP SCHEMA app, tap CASCADE;
CREATE EXTENSION eventstore;
