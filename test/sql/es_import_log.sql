-- es_import_log: events of another store, with their positions, versions and times
CREATE EXTENSION eventstore;
SET timezone = 'UTC';
SELECT es_append('here-1', 'none', 'first');
CREATE TABLE projected (position bigint PRIMARY KEY, stream text, version bigint);
SELECT es_create_projection('at_once', mode => 'sync', tables => '{projected}', query => 'INSERT INTO projected SELECT position, stream, version FROM new_events');
SELECT es_create_subscription('s');

-- As they are
INSERT INTO es_import_log (position, version, recorded_at, id, stream, type, data, metadata, occurred_at, tags, body) VALUES
    (10, 1, '2020-01-01 10:00', md5('1')::uuid, 'order-1', 'placed', '{"n": 1}', '{"m": 1}', '2019-12-31', '{b:2,a:1}', 'x'),
    (11, 1, '2020-01-01 10:01', md5('2')::uuid, 'order-2', 'placed', '{"n": 2}', NULL, NULL, NULL, NULL),
    (20, 2, '2020-01-01 10:02', md5('3')::uuid, 'order-1', 'paid', '{}', NULL, NULL, NULL, NULL);
INSERT INTO es_import_log (position, version, recorded_at, stream, type) VALUES (30, 3, '2020-01-01 10:02', 'order-1', 'sent');
SELECT position, version, recorded_at, occurred_at, id = md5('1')::uuid AS id, stream, type, data, metadata, tags, body FROM es_events WHERE position > 1 ORDER BY position;
SELECT es_horizon();
SELECT count(*) FROM projected;
SELECT position, stream FROM es_poll('s', 'me');
SELECT position FROM es_read(0, 100, '[{"tags": ["a:1"]}]');
SELECT state, version FROM es_state('order-1', 'es_merge', at_time => '2020-01-01 10:01:30');
SELECT es_append('order-1', 3, 'closed');
COPY es_import_log (position, version, recorded_at, stream, type, data) FROM stdin;
40	5	2020-01-02 00:00:00+00	order-1	more	{"k": 1}
41	1	2020-01-02 00:00:00+00	order-3	more	{"k": 2}
\.
SELECT position, version, stream, recorded_at FROM es_events WHERE position >= 40 ORDER BY position;

-- What would break a promise is refused, and nothing is stored.
CREATE FUNCTION refused(sql text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE d text; h text; c text;
BEGIN
    EXECUTE sql;
    RETURN 'accepted';
EXCEPTION WHEN OTHERS THEN
    GET STACKED DIAGNOSTICS d = PG_EXCEPTION_DETAIL, h = PG_EXCEPTION_HINT, c = PG_EXCEPTION_CONTEXT;
    RETURN concat_ws(E'\n', SQLSTATE || ' ' || SQLERRM, nullif(d, ''), nullif(h, ''), substring(c FROM 'row \d+ of the import'));
END $$;
CREATE FUNCTION row_of(pos text, version text, stream text DEFAULT '''order-4''', recorded text DEFAULT '''2020-02-01''', id text DEFAULT 'NULL::uuid', type text DEFAULT '''t''')
    RETURNS text LANGUAGE sql AS $$ SELECT format('INSERT INTO es_import_log (position, version, stream, recorded_at, id, type) SELECT 50::bigint, 1::bigint, ''other-1'', now(), NULL::uuid, ''t'' UNION ALL SELECT %s, %s, %s, %s::timestamptz, %s, %s', pos, version, stream, recorded, id, type) $$;
\t on
\pset format unaligned
SELECT refused(row_of('50', '1'));
SELECT refused(row_of('49', '1'));
SELECT refused(row_of('0', '1'));
SELECT refused(row_of('-1', '1'));
SELECT refused(row_of('NULL::bigint', '1'));
SELECT refused(row_of('51', '0'));
SELECT refused(row_of('51', '2'));
SELECT refused(row_of('51', 'NULL::bigint'));
SELECT refused(row_of('51', '1', '''order-1'''));
SELECT refused(row_of('51', '7', '''order-1'''));
SELECT refused(row_of('51', '1', '''other-1'''));
SELECT refused(row_of('51', '1', recorded => 'NULL'));
SELECT refused(row_of('51', '1', recorded => '''infinity'''));
SELECT refused(row_of('51', '1', recorded => '''-infinity'''));
SELECT refused(row_of('51', '1', id => 'md5(''1'')::uuid'));
SELECT refused(row_of('51', '1', 'NULL'));
SELECT refused(row_of('51', '1', ''''''));
SELECT refused(row_of('51', '1', '''es_own'''));
SELECT refused(row_of('51', '1', type => '''es_own'''));
SELECT refused(row_of('51', '1', type => 'NULL'));
SELECT refused('INSERT INTO es_import_log (position, version, stream, recorded_at, type) VALUES (41, 1, ''order-5'', now(), ''t'')');
SELECT refused('UPDATE es_import_log SET version = 2');
SELECT refused('DELETE FROM es_import_log');
SELECT count(*), max(position) FROM es_events;
-- A gap that was drawn and rolled back stays below.
BEGIN;
SELECT es_append('gone-1', 'none', 'x');
ROLLBACK;
SELECT es_horizon();
SELECT refused(row_of('51', '1'));
-- A stream that was deleted goes on, one that was closed does not.
SELECT es_delete_stream('order-2', 1);
SELECT max(position) AS last FROM es_events \gset
SELECT refused(format('INSERT INTO es_import_log (position, version, stream, recorded_at, type) VALUES (%s, 1, ''order-2'', now(), ''t'')', :last + 1));
SELECT refused(format('INSERT INTO es_import_log (position, version, stream, recorded_at, type) VALUES (%s, 3, ''order-2'', now(), ''t'')', :last + 1));
SELECT es_delete_stream('order-3', 1, tombstone => true);
SELECT max(position) AS last FROM es_events \gset
SELECT refused(format('INSERT INTO es_import_log (position, version, stream, recorded_at, type) VALUES (%s, 3, ''order-3'', now(), ''t'')', :last + 1));
-- Definitions are not looked at.
SELECT es_define_event_type('strict', '{a}', '{a}');
INSERT INTO es_import_log (position, version, recorded_at, stream, type) VALUES (:last + 1, 1, now(), 'order-6', 'strict');
-- Chunks, in one statement and in several of one transaction
BEGIN;
INSERT INTO es_import_log (position, version, recorded_at, stream, type) SELECT :last + 10 + i, 1 + (i - 1) / 10, '2021-01-01'::timestamptz + i * interval '1 s', 'many-' || i % 10, 't' FROM generate_series(1, 2500) i;
INSERT INTO es_import_log (position, version, recorded_at, stream, type) SELECT :last + 10 + i, 1 + (i - 1) / 10, '2021-01-01'::timestamptz + i * interval '1 s', 'many-' || i % 10, 't' FROM generate_series(2501, 3000) i;
COMMIT;
SELECT count(*), count(DISTINCT stream), max(version), max(position) - :last FROM es_events WHERE es_category(stream) = 'many';
SELECT count(*) FROM projected JOIN es_events USING (position, stream, version) WHERE es_category(stream) = 'many';
SELECT (es_append('many-1', 300, 't')).version;
-- One view within a statement on the other
CREATE FUNCTION beside() RETURNS text LANGUAGE plpgsql AS $$ BEGIN INSERT INTO es_import (stream, type) VALUES ('beside-1', 't'); RETURN 'other-9'; END $$;
SELECT max(position) AS last FROM es_events \gset
INSERT INTO es_import_log (position, version, recorded_at, stream, type) SELECT :last + 100 + i, i, now(), beside(), 't' FROM generate_series(1, 2) i;
SELECT stream, version FROM es_events WHERE position > :last ORDER BY position;
SET session_replication_role = replica;
SELECT refused(row_of('900000', '1'));
RESET session_replication_role;
SELECT * FROM es_import_log;

-- What was rolled back, and is still in the index, does not keep lower positions out.
SELECT max(position) AS last FROM es_events \gset
BEGIN;
INSERT INTO es_import_log (position, version, recorded_at, stream, type) SELECT :last + 1 + i, i, '2020-01-02', 'again-1', 't' FROM generate_series(1, 1500) AS i;
ROLLBACK;
INSERT INTO es_import_log (position, version, recorded_at, stream, type) VALUES (:last + 1, 1, '2020-01-02', 'again-1', 't');
SELECT es_horizon() - :last;
SELECT version, position - :last AS position FROM es_append('again-1', 1, 't');
SELECT stream, position - :last AS position FROM es_read(:last) WHERE es_horizon() = (SELECT max(position) FROM es_events);

DROP EXTENSION eventstore CASCADE;
DROP TABLE projected;
DROP FUNCTION refused, row_of, beside;
