-- es_decide: a decider turns a command into events, on the state of the events that match a
-- query, while no other can come.
CREATE EXTENSION eventstore;
SET timezone = 'UTC';

-- Counts what it gets; the events are those of the command, or as many as it counts.
CREATE FUNCTION tally(state jsonb, event es_recorded_event) RETURNS jsonb LANGUAGE sql AS
    $$ SELECT jsonb_build_object('n', coalesce((state->>'n')::int, 0) + 1, 'last', event.type) $$;
CREATE FUNCTION decide(state jsonb, command jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
    IF command ? 'most' AND (state->>'n')::int >= (command->>'most')::int THEN
        RAISE EXCEPTION 'no place' USING ERRCODE = 'REFUS', DETAIL = format('The state is %s.', state);
    END IF;
    RETURN NULLIF(command->'events', 'null');
END $$;
CREATE FUNCTION run(query jsonb, command jsonb, metadata jsonb DEFAULT NULL, initial jsonb DEFAULT '{}') RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    code text; message text; detail text; hint text;
    result record;
BEGIN
    SELECT * INTO result FROM es_decide(query, 'decide'::regproc, command, 'tally'::regproc, metadata, initial);
    RETURN format('%s events: %s; state %s', result.events,
                  coalesce((SELECT string_agg(format('%s %s %s', e.stream, e.version, e.type), ', ' ORDER BY e.position) FROM es_events AS e
                             WHERE e.position BETWEEN result.first_position AND result.position), 'none'), result.state);
EXCEPTION WHEN OTHERS THEN
    GET STACKED DIAGNOSTICS code = RETURNED_SQLSTATE, message = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
    RETURN format('%s: %s. %s %s', code, message, regexp_replace(detail, '(position )\d+', '\1N', 'g'), hint);
END $$;

--
-- What comes out, and what comes in
--
SELECT run('[{"tags": ["course:c1"]}]', '{"events": [{"type": "defined", "tags": ["course:c1"]}]}');
SELECT run('[{"tags": ["course:c1"]}]', '{"most": 3, "events": [{"type": "subscribed", "tags": ["course:c1", "student:s1"]}]}');
SELECT run('[{"tags": ["course:c1"]}]', '{"most": 3, "events": [{"type": "subscribed", "tags": ["course:c1", "student:s2"]}]}');
SELECT run('[{"tags": ["course:c1"]}]', '{"most": 3, "events": [{"type": "subscribed", "tags": ["course:c1", "student:s3"]}]}');
-- of several items, with types, without tags, of all events
SELECT run('[{"tags": ["course:c1"]}, {"tags": ["student:s2"]}]', '{"events": []}');
SELECT run('[{"types": ["subscribed"], "tags": ["course:c1"]}]', '{"events": [{"type": "closed", "tags": ["course:c1"]}]}');
SELECT run('[{"types": ["subscribed"]}]', '{"events": [{"type": "subscribed", "stream": "free-1"}, {"type": "noted", "stream": "free-1"}, {"type": "subscribed", "stream": "free-2"}]}');
SELECT run('[{}]', '{"events": [{"type": "noted", "stream": "free-3"}]}');
SELECT run('[{"tags": ["student:s1"]}, {"types": ["noted"]}]', '{"events": [{"type": "noted", "stream": "free-3", "expected_version": 1}]}');
-- nothing to do
SELECT run('[{"tags": ["course:c2"]}]', '{"events": []}'), run('[{"tags": ["course:c2"]}]', '{"events": []}', NULL, NULL), run('[{"types": ["never"]}]', '{"events": []}', NULL, '{"n": 7}');
SELECT first_position, "position", events FROM es_decide('[{"tags": ["course:c2"]}]', 'decide(jsonb, jsonb)', '{"events": []}', 'tally(jsonb, es_recorded_event)');
-- its events need not match
SELECT run('[{"tags": ["course:c2"]}]', '{"events": [{"type": "other", "tags": ["lecturer:l1"]}]}');
-- a stream's version is looked at, too
SELECT run('[{"tags": ["course:c2"]}]', '{"events": [{"type": "other", "stream": "event-lecturer:l1", "expected_version": "none"}]}');
SELECT run('[{"tags": ["course:c2"]}]', '{"events": [{"type": "other", "stream": "event-lecturer:l1", "expected_version": 1, "tags": ["course:c2"]}]}');
-- the state is what es_query has
SELECT (SELECT state->>'n' FROM es_decide(q.query, 'decide'::regproc, '{"events": []}', 'tally'::regproc))::int IS NOT DISTINCT FROM NULLIF((SELECT count(*) FROM es_query(q.query)), 0) AS same
  FROM (VALUES ('[{}]'::jsonb), ('[{"types": ["subscribed", "noted"]}]'), ('[{"tags": ["course:c1"]}, {"types": ["noted"]}]'), ('[{"tags": ["course:c1", "student:s1"]}]')) AS q (query);

--
-- Repeated commands
--
\set one '\'{"command_id": "00000000-0000-7000-8000-000000000001"}\''
\set two '\'{"command_id": "00000000-0000-7000-8000-000000000002"}\''
\set three '\'{"command_id": "00000000-0000-7000-8000-000000000003"}\''
SELECT run('[{"tags": ["order:1"]}]', '{"events": [{"type": "placed", "tags": ["order:1"]}, {"type": "placed", "tags": ["order:2"]}]}', :one);
SELECT run('[{"tags": ["order:1"]}]', '{"events": [{"type": "paid", "tags": ["order:1"]}]}');
-- the first result, with the state that it had, whatever would be decided now
SELECT run('[{"tags": ["order:1"]}]', '{"most": 0, "events": [{"type": "anything", "tags": ["order:1"]}]}', :one);
SELECT run('[{"types": ["paid"]}]', '{"events": [{"type": "paid", "stream": "p-1"}, {"type": "noted", "stream": "p-1"}, {"type": "paid", "stream": "p-2"}]}', :two);
SELECT run('[{"types": ["paid"]}]', '{"events": [{"type": "paid", "stream": "p-3"}]}');
SELECT run('[{"types": ["paid"]}]', '{"events": []}', :two);
-- nothing was stored: decided again
SELECT run('[{"tags": ["order:1"]}]', '{"events": []}', :three);
SELECT run('[{"tags": ["order:1"]}]', '{"events": [{"type": "sent", "tags": ["order:1"]}]}', :three);
SELECT type, metadata, id = es_uuid5((metadata->>'command_id')::uuid, ':' || row_number() OVER (PARTITION BY metadata->>'command_id' ORDER BY position)) AS by_number
  FROM es_events WHERE metadata ? 'command_id' ORDER BY position;
-- ids of their own
SELECT run('[{"tags": ["order:1"]}]', '{"events": [{"type": "x", "tags": ["order:1"]}, {"type": "x", "tags": ["order:1"], "id": "00000000-0000-7000-8000-0000000000a1"}]}', '{"command_id": "00000000-0000-7000-8000-000000000004"}');
SELECT run('[{"tags": ["order:5"]}]', '{"events": [{"type": "x", "tags": ["order:5"], "id": "00000000-0000-7000-8000-0000000000a1"}, {"type": "y", "tags": ["order:5"]}]}');
SELECT run('[{"tags": ["order:5"]}]', '{"events": [{"type": "z", "tags": ["order:5"]}]}');
SELECT run('[{"tags": ["order:5"]}]', '{"events": [{"type": "x", "tags": ["order:5"], "id": "00000000-0000-7000-8000-0000000000a1"}, {"type": "y", "tags": ["order:5"]}]}');
SELECT run('[{"types": ["x", "y"]}]', '{"events": [{"type": "x", "tags": ["order:5"], "id": "00000000-0000-7000-8000-0000000000a1"}, {"type": "y", "tags": ["order:5"]}]}');
SELECT run('[{"tags": ["order:5"]}]', '{"events": [{"type": "z", "tags": ["order:5"], "id": "00000000-0000-7000-8000-0000000000a1"}]}');
SELECT run('[{"tags": ["order:1"]}]', '{"events": [{"type": "x", "tags": ["order:1"]}]}', '{"command_id": 5}');

--
-- A decider that writes
--
CREATE FUNCTION meddle(state jsonb, command jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
    PERFORM es_append('meddled-1', 'any', command->>'type', tags => ARRAY[command->>'tag']);
    RETURN '[{"type": "decided", "tags": ["meddle:1"]}]';
END $$;
CREATE FUNCTION meddled(query jsonb, command jsonb) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    code text; message text;
BEGIN
    RETURN (SELECT d.events || ' ' || d.state FROM es_decide(query, 'meddle'::regproc, command, 'tally'::regproc) AS d);
EXCEPTION WHEN OTHERS THEN
    GET STACKED DIAGNOSTICS code = RETURNED_SQLSTATE, message = MESSAGE_TEXT;
    RETURN code || ' ' || message;
END $$;
SELECT meddled('[{"tags": ["meddle:1"]}]', '{"type": "t", "tag": "meddle:2"}'), meddled('[{"tags": ["meddle:1"]}]', '{"type": "t", "tag": "meddle:1"}');
SELECT meddled('[{"types": ["decided"]}]', '{"type": "t", "tag": "meddle:2"}'), meddled('[{"types": ["decided", "m"]}]', '{"type": "m", "tag": "meddle:2"}');
SELECT stream, count(*) FROM es_events WHERE stream = 'meddled-1' OR tags @> '{meddle:1}' GROUP BY 1 ORDER BY 1;

--
-- Snapshots of a tag
--
SET eventstore.snapshot_every = 3;
SELECT run('[{"tags": ["many"]}]', jsonb_build_object('events', jsonb_agg('{"type": "e", "stream": "many-1", "tags": ["many"]}'::jsonb))) FROM generate_series(1, 5);
SELECT run('[{"tags": ["many"]}]', '{"events": [{"type": "f", "stream": "many", "tags": ["many"]}]}');
SELECT s.stream, s.of_tag, s.version = (SELECT max(position) FROM es_query('[{"tags": ["many"]}]', before_position => (SELECT position FROM es_last_event('many'))))  AS at_last, state FROM es_snapshots AS s;
-- it is used, by the same query alone (an item that comes twice is one), and not for a stream of that name
UPDATE es_snapshots SET state = '{"n": 100}';
SELECT run('[{"tags": ["many"]}]', '{"events": []}'), run('[{"tags": ["many"]}, {"tags": ["many"]}]', '{"events": []}'), run('[{"types": ["e", "f"], "tags": ["many"]}]', '{"events": []}');
SELECT state, version FROM es_state('many', 'tally');
SELECT run('[{"tags": ["many"]}]', '{"events": []}', NULL, '{"n": 0}');
-- es_rewrite deletes it
SELECT es_rewrite((SELECT id FROM es_load('many-1', 2, 1)), '{"new": true}') IS NOT NULL AS rewritten;
SELECT run('[{"tags": ["many"]}]', '{"events": []}'), (SELECT count(*) FROM es_snapshots) AS snapshots;
RESET eventstore.snapshot_every;

--
-- Refused: nothing is stored
--
SELECT count(*) AS count FROM es_events \gset before_
SELECT s.query, run(s.query::jsonb, '{"events": [{"type": "x", "stream": "x-1"}]}') AS said
  FROM (VALUES ('[]'), ('{}'), ('null'), ('[1]'), ('[{"tags": []}]'), ('[{"tag": ["a"]}]')) AS s (query);
SELECT run(NULL, '{}'), run('[{}]', NULL);
SELECT run('[{"tags": ["order:1"]}]', '{}'), run('[{"tags": ["order:1"]}]', '{"events": {}}'), run('[{"tags": ["order:1"]}]', '{"events": [{"type": "x"}]}');
SELECT run('[{"tags": ["order:1"]}]', '{"events": [{"type": "es_x", "tags": ["order:1"]}]}'), run('[{"tags": ["order:1"]}]', '{"events": [{"type": "x", "stream": "es_x"}]}');
SELECT run('[{"tags": ["order:1"]}]', jsonb_build_object('events', jsonb_agg('{"type": "e", "stream": "e-1"}'::jsonb))) FROM generate_series(1, 1001);
SELECT run('[{"tags": ["order:1"]}]', '{"events": []}', '[]');
SELECT es_decide('[{}]', NULL, '{}', 'tally'::regproc);
SELECT es_decide('[{}]', 'decide'::regproc, '{}', NULL);
SELECT es_decide('[{}]', 'tally'::regproc, '{}', 'tally'::regproc);
SELECT es_decide('[{}]', 'decide'::regproc, '{}', 'decide'::regproc);
SELECT es_decide('[{}]', 'nobody', '{}', 'tally'::regproc);
\set SHOW_CONTEXT errors
CREATE FUNCTION r_bad(state jsonb, event es_recorded_event) RETURNS jsonb LANGUAGE plpgsql AS $$ BEGIN IF event.type = 'bad' THEN RAISE 'bad'; END IF; RETURN '{}'; END $$;
SELECT es_decide('[{"tags": ["bad"]}]', 'decide'::regproc, '{"events": [{"type": "bad", "tags": ["bad"]}]}', 'r_bad'::regproc) IS NULL;
SELECT es_decide('[{"tags": ["order:1"]}]', 'decide'::regproc, '{"events": [{"type": "t", "tags": ["x"]}, {"type": "", "tags": ["x"]}]}', 'tally'::regproc);
\set SHOW_CONTEXT never
BEGIN READ ONLY;
SELECT es_decide('[{"tags": ["order:1"]}]', 'decide'::regproc, '{"events": []}', 'tally'::regproc);
ROLLBACK;
SELECT count(*) = :before_count AS none FROM es_events;
-- as it is called more than once, at each level
BEGIN ISOLATION LEVEL SERIALIZABLE;
SELECT run('[{"tags": ["twice"]}]', '{"events": [{"type": "a", "tags": ["twice"]}]}');
SELECT run('[{"tags": ["twice"]}]', '{"events": [{"type": "a", "tags": ["twice", "thrice"]}]}');
SELECT run('[{"tags": ["twice", "thrice"]}, {"types": ["a"]}]', '{"events": [{"type": "a", "stream": "a-1"}]}');
COMMIT;
-- more than 1,000 locks: the whole log
BEGIN;
SELECT run((SELECT jsonb_agg(jsonb_build_object('tags', (SELECT jsonb_agg(format('t:%s:%s', i, n)) FROM generate_series(1, 64) AS n))) FROM generate_series(1, 17) AS i),
           '{"events": [{"type": "a", "tags": ["t:1:1", "other"]}]}');
SELECT mode, granted FROM pg_locks WHERE relation = 'es_events'::regclass AND mode = 'ShareRowExclusiveLock';
ROLLBACK;
-- as few as that, whatever was locked for a moment
BEGIN;
SELECT count(*) FROM (SELECT run('[{"tags": ["few"]}]', '{"events": []}') FROM generate_series(1, 1100)) AS r;
SELECT count(*) FROM pg_locks WHERE relation = 'es_events'::regclass AND mode = 'ShareRowExclusiveLock';
ROLLBACK;

DROP FUNCTION run, meddled, meddle, decide, tally, r_bad;
DROP EXTENSION eventstore;
