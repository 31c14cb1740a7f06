-- es_append: results, expected versions, retries by id, what is refused.
CREATE EXTENSION eventstore;

-- Versions count the stream, positions the log.
SELECT * FROM es_append('account-1', 'none', 'opened', '{"owner": "Ann"}');
SELECT * FROM es_append('account-2', 'none', 'opened');
SELECT * FROM es_append('account-1', 1, 'deposited', '{"amount": 5}', '{"user": "bob"}');
SELECT * FROM es_append('account-1', 'exists', 'deposited', '{"amount": 6}', NULL, NULL, '2020-02-29 12:00Z');
SELECT * FROM es_append('account-1', 'any', 'deposited', '[1, null]');
-- Untyped parameters, as drivers send them.
PREPARE append AS SELECT * FROM es_append($1, $2, $3, $4);
EXECUTE append('account-1', '4', 'deposited', '{"amount": 7}');
EXECUTE append('account-1', 'any', 'deposited', '[{"type": "x"}]');
SELECT position, version, stream, type, data, metadata, occurred_at AT TIME ZONE 'UTC' AS occurred_at,
       next_xid IS NOT NULL AS next_xid, recorded_at > now() - interval '1 hour' AS recorded, substr(id::text, 15, 1) AS id_version
  FROM es_events ORDER BY position;

-- The version is another one: ES001, and nothing is stored.
DO $$ BEGIN PERFORM es_append('account-1', 'none', 'opened'); EXCEPTION WHEN SQLSTATE 'ES001' THEN RAISE NOTICE 'ES001'; END $$;
SELECT es_append('account-1', 'none', 'opened');
SELECT es_append('account-1', 5, 'deposited');
SELECT es_append('account-1', 7, 'deposited');
SELECT es_append('account-3', 1, 'opened');
SELECT es_append('account-3', 1000000, 'opened');
SELECT es_append('account-3', 'exists', 'opened');
SELECT count(*) FROM es_events;

-- A retry returns the first result, whatever is expected.
SELECT * FROM es_append('account-4', 'none', 'opened', '{}', NULL, '00000000-0000-7000-8000-000000000001');
SELECT * FROM es_append('account-4', 1, 'deposited', '{}', NULL, '00000000-0000-7000-8000-000000000002');
SELECT * FROM es_append('account-4', 'none', 'opened', '{}', NULL, '00000000-0000-7000-8000-000000000001');
SELECT * FROM es_append('account-4', 77, 'deposited', '{}', NULL, '00000000-0000-7000-8000-000000000002');
SELECT count(*) FROM es_load('account-4');
-- The id of another stream's event: ES002.
SELECT es_append('account-5', 'none', 'opened', '{}', NULL, '00000000-0000-7000-8000-000000000001');
DO $$ BEGIN PERFORM es_append('account-5', 'any', 'x', '{}', NULL, '00000000-0000-7000-8000-000000000001'); EXCEPTION WHEN SQLSTATE 'ES002' THEN RAISE NOTICE 'ES002'; END $$;
SELECT es_stream_version('account-5');

-- Several calls in one transaction are one append over several streams.
BEGIN;
SELECT es_append('transfer-1', 'none', 'sent');
SELECT es_append('transfer-2', 'none', 'received');
ROLLBACK;
SELECT es_stream_version('transfer-1'), es_stream_version('transfer-2');
BEGIN;
SELECT version FROM es_append('transfer-1', 'none', 'sent');
SAVEPOINT s;
SELECT version FROM es_append('transfer-1', 1, 'sent');
ROLLBACK TO s;
SELECT version FROM es_append('transfer-1', 1, 'sent again');
SELECT version FROM es_append('transfer-2', 'none', 'received');
COMMIT;
SELECT version, type FROM es_load('transfer-1');
-- So do several calls in one statement.
SELECT a.version, b.version, c.version
  FROM es_append('transfer-3', 'none', 'a') a, es_append('transfer-3', 1, 'b') b, es_append('transfer-3', 2, 'c') c;
SELECT sum((es_append('transfer-4', 'any', 'n')).version) FROM generate_series(1, 5);

-- What is refused, with nothing stored.
SELECT max(position) AS before FROM es_events \gset
SELECT es_append(NULL, 'any', 't');
SELECT es_append('s', NULL, 't');
SELECT es_append('s', 'any', NULL);
SELECT es_append('s', 'any', 't', NULL);
SELECT es_append('', 'any', 't');
SELECT es_append(repeat('s', 2049), 'any', 't');
SELECT es_append(repeat('é', 1025), 'any', 't');
SELECT es_append('s', 'any', '');
SELECT es_append('s', 'any', repeat('t', 256));
SELECT es_append('s', 'any', 't', '{}', '[]');
SELECT es_append('s', 'any', 't', '{}', '"scalar"');
SELECT es_append('s', 'any', 't', '{');
SELECT es_append('s', 'any', 't', '{}', NULL, 'no uuid');
SELECT es_append('s', 'any', 't', '{}', NULL, NULL, 'yesterday noon');
SELECT es_append('s', -1, 't');
SELECT es_append('s', 'some', 't');
BEGIN READ ONLY;
SELECT es_append('s', 'any', 't');
ROLLBACK;
SELECT count(*) FROM es_events WHERE position > :before;

-- What just fits: random, so that nothing is compressed in the indexes.
SELECT string_agg(md5(i::text), '') AS long FROM generate_series(1, 64) i \gset
SELECT length(:'long'), (es_append(:'long', 'none', repeat('t', 255))).version;
SELECT (es_append(:'long', 1, repeat('t', 255))).version;
SELECT count(*) FROM es_load(:'long');
SELECT count(*) FROM es_read_category(:'long');
-- Names are bytes: any character goes, and order is that of bytes.
SELECT (es_append(s, 'none', t)).version FROM (VALUES ('-', 'é'), (' ', E'\n'), ('a-b-c', '''"\'), ('Zoë-1', 't'), ('zoë-1', 't')) v(s, t);
SELECT stream, es_category(stream), type FROM es_events WHERE position > :before AND length(stream) < 10 ORDER BY stream;

-- A large event, toasted.
SELECT (es_append('large-1', 'none', 't', jsonb_build_object('text', string_agg(md5(i::text), '')))).version FROM generate_series(1, 30000) i;
SELECT length(data ->> 'text'), md5(data ->> 'text') = (SELECT md5(string_agg(md5(i::text), '')) FROM generate_series(1, 30000) i) AS same FROM es_load('large-1');
-- Data that comes toasted from another table.
CREATE TEMP TABLE toasted AS SELECT data FROM es_load('large-1');
SELECT (es_append('large-2', 'none', 't', data)).version FROM toasted;
DROP TABLE toasted;
SELECT length(data ->> 'text') FROM es_load('large-2');

-- The log is never changed.
UPDATE es_events SET type = 'x';
UPDATE es_events SET type = 'x' WHERE false;
DELETE FROM es_events;
TRUNCATE es_events;
INSERT INTO es_events SELECT * FROM es_events WHERE stream = 'account-2' ON CONFLICT (position) DO UPDATE SET type = 'x';

-- Nulls at the end of the arguments are left out of plans, and no others.
EXPLAIN (VERBOSE, COSTS OFF) SELECT * FROM es_append('plan-1', 'any', 'x');
EXPLAIN (VERBOSE, COSTS OFF) SELECT es_append('plan-1', 'any', 'x', '{"a": 1}', NULL, '00000000-0000-4000-8000-000000000001');
EXPLAIN (VERBOSE, COSTS OFF) SELECT * FROM es_append_batch('plan-1', 'any', '{x}', '{"{}"}', occurred_at => NULL);
PREPARE optional(jsonb, uuid, timestamptz) AS SELECT version FROM es_append('plan-1', 'any', 'x', '{}', $1, $2, $3);
SET plan_cache_mode = force_generic_plan;
EXECUTE optional('{"a": 1}', '00000000-0000-4000-8000-000000000002', '2026-01-01Z');
EXECUTE optional(NULL, NULL, NULL);
SET plan_cache_mode = force_custom_plan;
EXECUTE optional('{"a": 1}', NULL, NULL);
EXECUTE optional(NULL, '00000000-0000-4000-8000-000000000003', NULL);
EXECUTE optional(NULL, NULL, '2026-01-02Z');
EXECUTE optional(NULL, NULL, NULL);
RESET plan_cache_mode;
SELECT version, metadata, substr(id::text, 15, 1) AS id_version, occurred_at AT TIME ZONE 'UTC' AS occurred_at FROM es_events WHERE stream = 'plan-1' ORDER BY version;

-- The result is of a type that statements know before they run. What is added to it is
-- null, and without what an append returns it is refused.
SELECT pg_typeof(es_append('typed-1', 'any', 'x')), pg_typeof(es_append_batch('typed-1', 'any', '[{"type": "x"}]')),
       pg_typeof(es_append_batch('typed-1', 'any', '{x}', '{"{}"}'));
ALTER TYPE es_appended ADD ATTRIBUTE stream text;
SELECT * FROM es_append('typed-1', 'any', 'x');
ALTER TYPE es_appended DROP ATTRIBUTE stream;
SELECT * FROM es_append('typed-1', 4, 'x') \gset
SELECT :version, :position > 0 AS has_position;
ALTER TYPE es_appended DROP ATTRIBUTE "position", ADD ATTRIBUTE "position" text;
SELECT * FROM es_append('typed-1', 'any', 'x');
SELECT es_stream_version('typed-1');

DROP EXTENSION eventstore;
