-- What the owner of es_events does to the table is honoured by appends, reads, folds,
-- polls, projections and rewrites, or refused with an error.
\set VERBOSITY terse
CREATE EXTENSION eventstore;
CREATE FUNCTION lo_decide(state jsonb, command jsonb) RETURNS jsonb LANGUAGE sql IMMUTABLE AS
    $$SELECT jsonb_build_array(jsonb_build_object('type', 'e', 'data', jsonb_build_object('n', 5, 'five', state -> 'n')))$$;
CREATE TABLE lo_counted (stream text PRIMARY KEY, n int);
SELECT es_create_projection('lo_counted', category => 'lo', mode => 'sync', tables => '{lo_counted}', query =>
    'INSERT INTO lo_counted SELECT stream, count(*) FROM new_events GROUP BY 1 ON CONFLICT (stream) DO UPDATE SET n = lo_counted.n + excluded.n');
SELECT es_create_subscription('lo', category => 'lo');
CREATE SEQUENCE lo_streams;

-- Appends to a new stream in every way, reads it in every way, rewrites its last event.
-- Returns what came out otherwise than with a table that nobody has touched.
CREATE FUNCTION lo_differs(stream text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    last_id uuid;
    last_token bigint;
    got bigint[];
    delivered bigint[] = '{}';
    delivery record;
BEGIN
    got = array[(SELECT version FROM es_append(stream, 'none', 'a', '{"n": 1}')),
                (SELECT version FROM es_append_batch(stream, 1, '[{"type": "b", "data": {"n": 2}}, {"type": "c", "data": {"n": 3}}]'))];
    INSERT INTO es_import (stream, type, data) VALUES (stream, 'd', '{"n": 4}');
    got = got || (SELECT version FROM es_execute(stream, 'lo_decide', '{}', 'es_merge'));
    IF got <> '{1,3,5}' THEN RETURN 'versions ' || got::text; END IF;
    IF (SELECT array_agg((e.data ->> 'n')::int) FROM es_load(stream) e) <> '{1,2,3,4,5}' THEN RETURN 'load'; END IF;
    IF (SELECT array_agg((e.data ->> 'n')::int) FROM es_load_backward(stream) e) <> '{5,4,3,2,1}' THEN RETURN 'load backward'; END IF;
    IF (SELECT array_agg(e.version) FROM es_read_category('lo') e WHERE e.stream = lo_differs.stream) <> '{1,2,3,4,5}' THEN RETURN 'category'; END IF;
    IF (SELECT e.type FROM es_last_event(stream) e) <> 'e' OR es_stream_version(stream) <> 5 THEN RETURN 'last'; END IF;
    IF (SELECT s.state FROM es_state(stream, 'es_merge') s) <> '{"n": 5, "five": 4}' THEN RETURN 'state'; END IF;
    IF (SELECT count(*) FROM es_history(stream, 'es_merge')) <> 5 THEN RETURN 'history'; END IF;
    IF (SELECT c.n FROM lo_counted c WHERE c.stream = lo_differs.stream) <> 5 THEN RETURN 'projection'; END IF;
    FOR delivery IN SELECT * FROM es_poll('lo') LOOP
        IF delivery.stream = stream THEN delivered = delivered || delivery.version; END IF;
        last_token = delivery.token;
    END LOOP;
    PERFORM es_ack('lo', last_token);
    IF delivered <> '{1,2,3,4,5}' THEN RETURN 'poll ' || delivered::text; END IF;
    SELECT e.id INTO last_id FROM es_last_event(stream) e;
    PERFORM es_rewrite(last_id, '{"n": 6}');
    IF (SELECT s.state FROM es_state(stream, 'es_merge') s) <> '{"n": 6}' THEN RETURN 'rewrite'; END IF;
    RETURN NULL;
END $$;
CREATE FUNCTION lo_try() RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    hint text;
BEGIN
    RETURN coalesce('DIFFERS: ' || lo_differs('lo-' || nextval('lo_streams')), 'honoured');
EXCEPTION WHEN OTHERS THEN
    GET STACKED DIAGNOSTICS hint = PG_EXCEPTION_HINT;
    RETURN SQLSTATE || ' ' || SQLERRM || CASE WHEN hint <> '' THEN ' (' || hint || ')' ELSE '' END;
END $$;
SELECT lo_try();

-- Columns of each kind
ALTER TABLE es_events ADD COLUMN lo_default text DEFAULT 'x', ADD COLUMN lo_always bigint GENERATED ALWAYS AS IDENTITY,
    ADD COLUMN lo_n int GENERATED ALWAYS AS ((data ->> 'n')::int) STORED, ADD COLUMN lo_serial bigserial, ADD COLUMN lo_array text[] NOT NULL DEFAULT '{a}';
SELECT lo_try();
SELECT lo_default, lo_n, lo_array, count(DISTINCT lo_always) AS identities FROM es_events WHERE stream = 'lo-2' GROUP BY 1, 2, 3 ORDER BY 2;
-- A default may itself append, but not to the stream whose version was looked up.
CREATE FUNCTION lo_note(stream text) RETURNS bigint LANGUAGE plpgsql AS $$
BEGIN
    IF current_setting('lo.noted', true) = stream THEN
        PERFORM set_config('lo.noted', '', false);
        RETURN (SELECT version FROM es_append(stream, 'any', 'noted'));
    END IF;
    RETURN 0;
END $$;
ALTER TABLE es_events ADD COLUMN lo_noted bigint;
ALTER TABLE es_events ALTER COLUMN lo_noted SET DEFAULT lo_note('note-1');
SET lo.noted = 'note-1';
SELECT lo_try();
SELECT lo_try();
SELECT version, type FROM es_load('note-1');
SET lo.noted = 'note-1';
SELECT version FROM es_append('note-1', 1, 'again');
SELECT es_stream_version('note-1');
ALTER TABLE es_events DROP COLUMN lo_default, DROP COLUMN lo_always, DROP COLUMN lo_n, DROP COLUMN lo_serial, DROP COLUMN lo_array, DROP COLUMN lo_noted;
-- Our own columns
-- which of the objects that use it is named depends on the order of their rows in pg_depend
\set VERBOSITY sqlstate
ALTER TABLE es_events ALTER COLUMN data TYPE json;
ALTER TABLE es_events ALTER COLUMN stream TYPE varchar;
\set VERBOSITY terse
ALTER TABLE es_events DROP COLUMN id;
BEGIN; ALTER TABLE es_events ALTER COLUMN next_xid TYPE text; SELECT lo_try(); ROLLBACK;
BEGIN; ALTER TABLE es_events DROP COLUMN next_xid; SELECT lo_try(); ROLLBACK;
BEGIN; ALTER TABLE es_events ALTER COLUMN id SET DEFAULT gen_random_uuid(), ALTER COLUMN metadata SET DEFAULT '{}'; SELECT lo_try(); ROLLBACK;
-- Names
BEGIN; ALTER TABLE es_events RENAME COLUMN data TO renamed; SELECT lo_try(); ROLLBACK;
BEGIN; ALTER TABLE es_events RENAME COLUMN next_xid TO renamed; SELECT lo_try(); ROLLBACK;
BEGIN; ALTER TABLE es_events RENAME TO renamed; SELECT lo_try(); ROLLBACK;
BEGIN; ALTER SEQUENCE es_position RENAME TO renamed; SELECT lo_try(); ROLLBACK;
BEGIN; ALTER SEQUENCE es_position RENAME TO renamed; CREATE SEQUENCE es_position; SELECT lo_try(); SELECT max(position) = (SELECT last_value FROM es_position) AS raised FROM es_events; ROLLBACK;
BEGIN; ALTER SEQUENCE es_position SET UNLOGGED; SELECT lo_try(); ROLLBACK;
BEGIN; ALTER SEQUENCE es_position AS int; SELECT lo_try(); ROLLBACK;
BEGIN; DROP TRIGGER es_events_complete ON es_events; SELECT lo_try(); ROLLBACK;

-- Constraints
ALTER TABLE es_events ADD CONSTRAINT lo_small CHECK ((data ->> 'n')::int < 100) NOT VALID;
SELECT lo_try();
SELECT es_append('lo-bad', 'none', 'a', '{"n": 100}');
SELECT es_append_batch('lo-bad', 'none', '[{"type": "a"}, {"type": "b", "data": {"n": 100}}]');
INSERT INTO es_import (stream, type, data) VALUES ('lo-bad', 'a', '{}'), ('lo-bad', 'b', '{"n": 100}');
SELECT es_rewrite(id, '{"n": 100}') FROM es_last_event('lo-1');
SELECT es_stream_version('lo-bad');
ALTER TABLE es_events DROP CONSTRAINT lo_small;
CREATE TABLE lo_types (type text COLLATE "C" PRIMARY KEY);
INSERT INTO lo_types VALUES ('a'), ('b'), ('c'), ('d'), ('e'), ('noted');
ALTER TABLE es_events ADD CONSTRAINT lo_types FOREIGN KEY (type) REFERENCES lo_types;
SELECT lo_try();
SELECT es_append('lo-bad', 'none', 'unknown');
INSERT INTO es_import (stream, type) VALUES ('lo-bad', 'a'), ('lo-bad', 'unknown');
DELETE FROM lo_types WHERE type = 'a';
ALTER TABLE es_events ALTER CONSTRAINT lo_types DEFERRABLE INITIALLY DEFERRED;
BEGIN; SELECT version FROM es_append('lo-bad', 'none', 'unknown'); COMMIT;
BEGIN; SELECT version FROM es_append('lo-late', 'none', 'late'); INSERT INTO lo_types VALUES ('late'); COMMIT;
ALTER TABLE es_events DROP CONSTRAINT lo_types;
ALTER TABLE es_events ADD CONSTRAINT lo_types FOREIGN KEY (type) REFERENCES lo_types ON DELETE CASCADE ON UPDATE CASCADE;
DELETE FROM lo_types WHERE type = 'late';
UPDATE lo_types SET type = 'later' WHERE type = 'late';
ALTER TABLE es_events DROP CONSTRAINT lo_types;
CREATE TABLE lo_marks (id uuid REFERENCES es_events (id), "position" bigint REFERENCES es_events ("position"));
INSERT INTO lo_marks SELECT id, "position" FROM es_events;
SELECT lo_try();
DROP TABLE lo_marks;
ALTER TABLE es_events ADD COLUMN lo_room int GENERATED ALWAYS AS ((data ->> 'room')::int) STORED,
    ADD COLUMN lo_rooms int4range GENERATED ALWAYS AS (CASE WHEN data ? 'room' THEN int4range((data ->> 'room')::int, (data ->> 'room')::int, '[]') END) STORED;
ALTER TABLE es_events ADD CONSTRAINT lo_room EXCLUDE USING gist (lo_rooms WITH &&);
SELECT lo_try();
SELECT version FROM es_append('room-1', 'none', 'booked', '{"room": 1}');
SELECT version FROM es_append('room-2', 'none', 'booked', '{"room": 1}');
INSERT INTO es_import (stream, type, data) VALUES ('room-2', 'booked', '{"room": 2}'), ('room-2', 'booked', '{"room": 2}');
SELECT es_rewrite(id, '{"room": 1}') FROM es_last_event('lo-1');
ALTER TABLE es_events DROP CONSTRAINT lo_room, ADD CONSTRAINT lo_room UNIQUE (lo_room) DEFERRABLE;
SELECT lo_try();
SELECT es_append_batch('room-2', 'none', '[{"type": "booked", "data": {"room": 2}}, {"type": "booked", "data": {"room": 2}}]');
ALTER TABLE es_events DROP CONSTRAINT lo_room, ADD CONSTRAINT lo_room UNIQUE (lo_room) INITIALLY DEFERRED;
BEGIN; SELECT version FROM es_append('room-2', 'none', 'booked', '{"room": 1}'); COMMIT;
BEGIN; SELECT version FROM es_append('room-2', 'none', 'booked', '{"room": 1}'); SELECT es_rewrite(id, '{}') > 0 FROM es_last_event('room-1'); COMMIT;
ALTER TABLE es_events DROP COLUMN lo_room, DROP COLUMN lo_rooms;
-- One of our names on another table is not taken for ours.
CREATE SCHEMA lo_other;
CREATE TABLE lo_other.es_events (type text CONSTRAINT es_events_id_key PRIMARY KEY);
CREATE FUNCTION lo_other() RETURNS text LANGUAGE sql VOLATILE AS 'INSERT INTO lo_other.es_events VALUES (''once'') RETURNING type';
ALTER TABLE es_events ADD COLUMN lo_once text;
ALTER TABLE es_events ALTER COLUMN lo_once SET DEFAULT lo_other();
SELECT version FROM es_append('lo-once', 'none', 'a');
SELECT version FROM es_append('lo-once', 'any', 'a');
ALTER TABLE es_events DROP COLUMN lo_once;
DROP SCHEMA lo_other CASCADE;
DROP FUNCTION lo_other;

-- Indexes of each kind
CREATE INDEX lo_hash ON es_events USING hash (type);
CREATE INDEX lo_brin ON es_events USING brin (recorded_at) WITH (autosummarize = on);
CREATE INDEX lo_gin ON es_events USING gin (data jsonb_path_ops);
CREATE INDEX lo_partial ON es_events (stream, version DESC) INCLUDE (type) WHERE type = 'a';
CREATE INDEX lo_expression ON es_events (lower(stream), (data ->> 'n'));
CREATE UNIQUE INDEX lo_descending ON es_events ("position" DESC);
CREATE UNIQUE INDEX lo_include ON es_events (id) INCLUDE (stream);
SELECT lo_try();
SELECT count(*) = (SELECT count(*) FROM es_events WHERE data @> '{"n": 3}') AS indexed FROM es_events WHERE (data ->> 'n')::int = 3;
DROP INDEX lo_hash, lo_brin, lo_gin, lo_partial, lo_expression, lo_descending, lo_include;
CREATE FUNCTION lo_fail(text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS $$BEGIN IF $1 = 'lo-bad' THEN RAISE 'not indexed'; END IF; RETURN $1; END$$;
CREATE INDEX lo_fail ON es_events (lo_fail(stream));
SELECT lo_try();
SELECT es_append('lo-bad', 'none', 'a');
DROP INDEX lo_fail;
-- The primary key in another form
ALTER TABLE es_events DROP CONSTRAINT es_events_pkey;
SELECT lo_try();
ALTER TABLE es_events ADD CONSTRAINT lo_key PRIMARY KEY ("position") INCLUDE (type);
SELECT lo_try();
ALTER TABLE es_events DROP CONSTRAINT lo_key, ADD CONSTRAINT lo_key PRIMARY KEY ("position") DEFERRABLE;
SELECT lo_try();
ALTER TABLE es_events DROP CONSTRAINT lo_key, ADD CONSTRAINT es_events_pkey PRIMARY KEY ("position");

-- Rules
CREATE RULE lo_rule AS ON INSERT TO es_events DO INSTEAD NOTHING;
SELECT lo_try();
ALTER TABLE es_events DISABLE RULE lo_rule;
SELECT lo_try();
ALTER TABLE es_events ENABLE REPLICA RULE lo_rule;
SELECT lo_try();
ALTER TABLE es_events ENABLE ALWAYS RULE lo_rule;
SET session_replication_role = replica;
SELECT es_append('lo-bad', 'none', 'a');
RESET session_replication_role;
DROP RULE lo_rule ON es_events;
CREATE RULE lo_rule AS ON UPDATE TO es_events DO INSTEAD NOTHING;
SELECT lo_try();
CREATE TABLE lo_seen (what text);
CREATE OR REPLACE RULE lo_rule AS ON UPDATE TO es_events DO ALSO INSERT INTO lo_seen VALUES ('updated ' || NEW.type);
SELECT lo_try();
TABLE lo_seen;
DROP RULE lo_rule ON es_events;

-- Inheritance and partitions
CREATE TABLE lo_child () INHERITS (es_events);
SELECT lo_try();
ALTER TABLE lo_child NO INHERIT es_events;
SELECT lo_try();
DROP TABLE lo_child;
CREATE TABLE lo_parent (LIKE es_events);
ALTER TABLE es_events INHERIT lo_parent;
SELECT lo_try();
SELECT count(*) = (SELECT count(*) FROM es_events) AS all_of_them FROM lo_parent;
UPDATE lo_parent SET data = '{}';
DELETE FROM lo_parent;
TRUNCATE lo_parent;
ALTER TABLE es_events NO INHERIT lo_parent;
DROP TABLE lo_parent;
CREATE TABLE lo_parent (LIKE es_events) PARTITION BY LIST (type);
ALTER TABLE lo_parent ATTACH PARTITION es_events FOR VALUES IN ('a', 'b', 'c', 'd', 'e', 'noted', 'booked', 'late');
SELECT lo_try();
SELECT es_append('lo-bad', 'none', 'f');
SELECT es_append_batch('lo-bad', 'none', '[{"type": "a"}, {"type": "f"}]');
UPDATE lo_parent SET data = '{}';
DELETE FROM lo_parent;
TRUNCATE lo_parent;
INSERT INTO lo_parent SELECT "position" + 1000, 1, '3', now(), NULL, es_uuid7(), 'lo-parent', 'a', '{}' FROM es_events ORDER BY 1 DESC LIMIT 1;
SELECT lo_try();
ALTER TABLE lo_parent DETACH PARTITION es_events;
DROP TABLE lo_parent;

-- Row security and privileges: they are for readers. The appender's right is EXECUTE.
CREATE ROLE regress_lo_reader;
SELECT es_grant('regress_lo_reader', 'reader');
SELECT es_grant('regress_lo_reader', 'writer');
ALTER TABLE es_events ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY lo_policy ON es_events TO regress_lo_reader USING (stream = 'lo-1') WITH CHECK (false);
SELECT lo_try();
SET ROLE regress_lo_reader;
SELECT version FROM es_append('lo-hidden', 'none', 'a');
SELECT version FROM es_append('lo-hidden', 1, 'a');
SELECT count(DISTINCT stream) FROM es_read();
SELECT es_stream_version('lo-hidden'), es_stream_version('lo-1');
SELECT es_execute('lo-hidden', 'lo_decide', '{}', 'es_merge');
RESET ROLE;
ALTER TABLE es_events DISABLE ROW LEVEL SECURITY, NO FORCE ROW LEVEL SECURITY;
DROP POLICY lo_policy ON es_events;
REVOKE SELECT ON es_events FROM regress_lo_reader;
GRANT SELECT (stream, type) ON es_events TO regress_lo_reader;
SET ROLE regress_lo_reader;
SELECT count(*) > 0 AS reads FROM (SELECT stream, type FROM es_events) e;
SELECT count(*) FROM es_load('lo-1');
SELECT es_state('lo-1', 'es_merge');
SELECT es_execute('lo-1', 'lo_decide', '{}', 'es_merge');
SELECT version FROM es_append('lo-hidden', 2, 'a', id => '00000000-0000-0000-0000-0000000000b1');
SELECT version FROM es_append('lo-other', 'none', 'a', id => '00000000-0000-0000-0000-0000000000b1');
RESET ROLE;
REVOKE SELECT (stream, type) ON es_events FROM regress_lo_reader;

-- Storage
ALTER TABLE es_events SET UNLOGGED;
SELECT lo_try();
ALTER TABLE es_events SET LOGGED;
CREATE ACCESS METHOD lo_heap TYPE TABLE HANDLER heap_tableam_handler;
ALTER TABLE es_events SET ACCESS METHOD lo_heap;
SELECT lo_try();
ALTER TABLE es_events SET ACCESS METHOD heap;
SET allow_in_place_tablespaces = on;
CREATE TABLESPACE regress_lo_space LOCATION '';
ALTER TABLE es_events SET TABLESPACE regress_lo_space;
ALTER INDEX es_events_pkey SET TABLESPACE regress_lo_space;
SELECT lo_try();
ALTER TABLE es_events SET TABLESPACE pg_default;
ALTER INDEX es_events_pkey SET TABLESPACE pg_default;
DROP TABLESPACE regress_lo_space;
CLUSTER es_events USING es_events_id_key;
SELECT lo_try();
ALTER TABLE es_events SET WITHOUT CLUSTER, SET (fillfactor = 50, toast_tuple_target = 128),
    ALTER COLUMN data SET STORAGE EXTERNAL, ALTER COLUMN data SET COMPRESSION pglz, ALTER COLUMN type SET STATISTICS 1000;
CREATE STATISTICS lo_statistics ON stream, type FROM es_events;
ANALYZE es_events;
SELECT lo_try();
SELECT version FROM es_append('lo-large', 'none', 'a', jsonb_build_object('text', repeat('xy', 5000)));
SELECT pg_column_size(data) > 10000 AS external FROM es_events WHERE stream = 'lo-large';
VACUUM FULL es_events;
SELECT lo_try();

-- Publications
CREATE FUNCTION lo_publish(what text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE 'CREATE PUBLICATION lo_publication ' || what;
    RETURN lo_try();
END $$;
SET client_min_messages = error;
BEGIN; SELECT lo_publish('FOR TABLE es_events'); ROLLBACK;
BEGIN; SELECT lo_publish('FOR TABLE es_events WHERE (stream <> ''x'')'); ROLLBACK;
BEGIN; SELECT lo_publish('FOR TABLE es_events WHERE (stream <> ''x'') WITH (publish = ''insert'')'); ROLLBACK;
BEGIN; SELECT lo_publish('FOR TABLE es_events WHERE ("position" > 0)'); ROLLBACK;
BEGIN; SELECT lo_publish('FOR TABLE es_events ("position", stream, data)'); ROLLBACK;
BEGIN; SELECT lo_publish('FOR TABLE es_events (stream, data)'); ROLLBACK;
BEGIN; ALTER TABLE es_events REPLICA IDENTITY NOTHING; SELECT lo_publish('FOR TABLE es_events'); ROLLBACK;
BEGIN; ALTER TABLE es_events REPLICA IDENTITY FULL; SELECT lo_publish('FOR TABLE es_events'); ROLLBACK;
RESET client_min_messages;

-- Every stream is whole, and positions ascend with versions.
SELECT count(*) AS wrong FROM (SELECT version <> row_number() OVER w OR "position" < lag("position") OVER w AS wrong
  FROM es_events WINDOW w AS (PARTITION BY stream ORDER BY version)) e WHERE wrong;
SET client_min_messages = warning;
DROP EXTENSION eventstore CASCADE;
DROP TABLE lo_counted, lo_types, lo_seen;
DROP SEQUENCE lo_streams;
DROP FUNCTION lo_decide, lo_differs, lo_try, lo_note, lo_fail, lo_publish;
DROP ACCESS METHOD lo_heap;
DROP OWNED BY regress_lo_reader;
DROP ROLE regress_lo_reader;
