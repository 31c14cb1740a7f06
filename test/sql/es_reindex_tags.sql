-- es_tags: each tag of each event has an entry, whatever way the event came.
CREATE EXTENSION eventstore;
CREATE VIEW differences AS
SELECT * FROM (SELECT t.tag, e.position, e.type FROM es_events AS e, unnest(e.tags) AS t (tag) EXCEPT TABLE es_tags) AS missing
UNION ALL SELECT * FROM (TABLE es_tags EXCEPT SELECT t.tag, e.position, e.type FROM es_events AS e, unnest(e.tags) AS t (tag)) AS more;

-- Appends, in their forms; those that fail leave nothing
SELECT version FROM es_append('t-1', 'any', 'a', tags => '{x,y}');
SELECT version FROM es_append_batch('t-1', 'any', '[{"type": "a"}, {"type": "b", "tags": ["y"]}, {"type": "c", "tags": ["x", "z"]}]');
INSERT INTO es_import (stream, type, tags) SELECT 'i-' || n % 7, 'i', ARRAY['n:' || n, 'all'] FROM generate_series(1, 2500) AS n;
BEGIN;
SELECT version FROM es_append('t-1', 'any', 'a', tags => '{gone}');
ROLLBACK;
SELECT es_append('t-1', 99, 'a', tags => '{gone}');
SELECT count(*), count(DISTINCT tag) FROM es_tags;
SELECT * FROM differences;
SELECT * FROM es_tags WHERE tag IN ('x', 'y', 'z', 'gone') ORDER BY tag, position;

-- Where an append fires triggers, also of a sync projection, and where a trigger stores rows of its own
CREATE TABLE seen (position bigint PRIMARY KEY);
SELECT es_create_projection('p', query => 'INSERT INTO seen SELECT position FROM new_events', tables => '{seen}', mode => 'sync', category => 't');
CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF new.stream = 't-1' THEN
        INSERT INTO es_events (position, version, next_xid, recorded_at, id, stream, type, data, tags)
        VALUES (new.position + 1000000, new.version, '3', now(), gen_random_uuid(), 'copy-1', 'copied', '{}', '{copied,x}');
        PERFORM es_append('other-1', 'any', 'noted', tags => '{noted}');
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER note AFTER INSERT ON es_events FOR EACH ROW EXECUTE FUNCTION note();
SELECT version FROM es_append('t-1', 'any', 'a', tags => '{x,fired}');
SELECT version FROM es_append('t-2', 'any', 'a');
INSERT INTO es_import (stream, type, tags) VALUES ('t-2', 'i', '{x}'), ('t-2', 'i', NULL);
DROP TRIGGER note ON es_events;
DROP FUNCTION note;
SELECT es_drop_projection('p');
SELECT count(*) FROM es_tags WHERE tag IN ('fired', 'noted', 'copied');
SELECT * FROM differences;

-- Rows that come with their columns: by COPY, in a session of a replica, by a part of the rows that is there
CREATE TABLE copies AS SELECT position + 2000000 AS position, version, next_xid, recorded_at, occurred_at, gen_random_uuid() AS id, 'again-' || stream AS stream, type, data, metadata, tags, body FROM es_events WHERE stream = 't-1';
INSERT INTO es_events SELECT * FROM copies;
INSERT INTO es_events SELECT * FROM copies ON CONFLICT DO NOTHING;
UPDATE copies SET position = position + 1000, id = gen_random_uuid(), stream = 'replica-1';
SET session_replication_role = replica;
INSERT INTO es_events SELECT * FROM copies;
RESET session_replication_role;
SELECT count(*) FROM es_tags WHERE position > 2000000;
SELECT * FROM differences;

-- Tags that no append would store so
CREATE FUNCTION insert_tags(tags text[]) RETURNS void LANGUAGE sql AS $$
    INSERT INTO es_events (position, version, next_xid, recorded_at, id, stream, type, data, tags) VALUES (5000000, 1, '3', now(), gen_random_uuid(), 'odd-1', 'odd', '{}', tags) $$;
SELECT insert_tags('{b,a}');
SELECT insert_tags('{a,a}');
SELECT insert_tags('{a,NULL}');
SELECT insert_tags('{""}');
SELECT insert_tags('{}');
SELECT insert_tags('{{a},{b}}');
SELECT insert_tags('[0:1]={a,b}');

-- Repair: rows that came while the trigger was disabled, and entries that no event has
ALTER TABLE es_events DISABLE TRIGGER es_events_tag;
UPDATE copies SET position = position + 1000, id = gen_random_uuid(), stream = 'disabled-1';
INSERT INTO es_events SELECT * FROM copies;
ALTER TABLE es_events ENABLE ALWAYS TRIGGER es_events_tag;
INSERT INTO es_tags VALUES ('x', 4000000, 'a'), ('y', 1, 'other'), ('w', 1, 'a') ON CONFLICT DO NOTHING;
DELETE FROM es_tags WHERE tag = 'n:7' OR position = 1;
INSERT INTO es_tags VALUES ('y', 1, 'other');
SELECT count(*) FROM differences;
SELECT * FROM es_reindex_tags();
SELECT * FROM differences;
SELECT * FROM es_reindex_tags();
BEGIN READ ONLY;
SELECT * FROM es_reindex_tags();
ROLLBACK;

-- An owner that has forced row security on itself sees no event, and removes no entry
CREATE ROLE regress_es_tags;
GRANT CREATE ON SCHEMA public TO regress_es_tags;
ALTER TABLE es_events OWNER TO regress_es_tags;
ALTER TABLE es_tags OWNER TO regress_es_tags;
ALTER TABLE es_events ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
SELECT * FROM es_reindex_tags();
ALTER TABLE es_events DISABLE ROW LEVEL SECURITY, NO FORCE ROW LEVEL SECURITY;
ALTER TABLE es_events OWNER TO CURRENT_USER;
ALTER TABLE es_tags OWNER TO CURRENT_USER;
REVOKE CREATE ON SCHEMA public FROM regress_es_tags;

-- Who may do it
SELECT es_grant('regress_es_tags', 'reader'), es_grant('regress_es_tags', 'writer');
SET ROLE regress_es_tags;
SELECT * FROM es_tags;
SELECT * FROM es_reindex_tags();
SELECT version FROM es_append('t-9', 'any', 'a', tags => '{by,writer}');
SELECT tags FROM es_load('t-9');
RESET ROLE;
SELECT es_grant('regress_es_tags', 'operator');
SET ROLE regress_es_tags;
SELECT * FROM es_reindex_tags();
RESET ROLE;
SELECT * FROM differences;
SELECT es_revoke('regress_es_tags', kind) FROM unnest('{reader,writer,operator}'::text[]) AS kind;
DROP ROLE regress_es_tags;

-- What its owner adds to the table and no append would honour; an index on columns, and a column that is gone, are nothing
CREATE FUNCTION outcome(statement text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    result text; code text; detail text; hint text;
BEGIN
    EXECUTE statement INTO result;
    RETURN result;
EXCEPTION WHEN OTHERS THEN
    GET STACKED DIAGNOSTICS code = RETURNED_SQLSTATE, result = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
    RETURN concat_ws(' | ', code, result, detail, hint);
END $$;
CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN new; END';
DROP VIEW differences;
DO $$
DECLARE
    change text; appended text; found text;
BEGIN
    FOREACH change IN ARRAY string_to_array($c$CREATE INDEX ON es_tags (lower(tag))
CREATE INDEX ON es_tags (type) WHERE tag > 'b'
CREATE INDEX ON es_tags (type)
ALTER TABLE es_tags ADD CHECK (tag <> 'c')
ALTER TABLE es_tags ADD UNIQUE (position, tag) DEFERRABLE
ALTER TABLE es_tags ADD COLUMN more int DEFAULT 1
ALTER TABLE es_tags ADD COLUMN more int; ALTER TABLE es_tags DROP COLUMN more; CREATE INDEX ON es_tags (type)
ALTER TABLE es_tags DROP CONSTRAINT es_tags_pkey
ALTER TABLE es_tags DROP CONSTRAINT es_tags_pkey, ADD PRIMARY KEY (position, tag)
CREATE TRIGGER note BEFORE INSERT ON es_tags FOR EACH ROW EXECUTE FUNCTION note()
CREATE TRIGGER note AFTER INSERT ON es_tags EXECUTE FUNCTION note()
CREATE RULE r AS ON INSERT TO es_tags DO ALSO NOTHING
ALTER TABLE es_tags ALTER type TYPE varchar
ALTER TABLE es_tags DROP COLUMN type$c$, E'\n') LOOP
        BEGIN
            EXECUTE change;
            appended := outcome($q$ SELECT 'appended' FROM es_append('t-10', 'any', 'a', tags => '{changed,x}') $q$);
            found := outcome($q$ SELECT 'found ' || count(*) FROM es_query('[{"tags": ["changed", "x"]}]') $q$);
            RAISE SQLSTATE 'UNDO1';
        EXCEPTION WHEN SQLSTATE 'UNDO1' THEN
            RAISE INFO E'%\n    %\n    %', change, appended, found;
        END;
    END LOOP;
END $$;
DROP FUNCTION outcome, note;
SELECT * FROM es_reindex_tags();
-- the trigger by hand
SELECT es_events_tag();
DROP TABLE copies, seen;
DROP FUNCTION insert_tags;
SET eventstore.allow_drop = on;
DROP EXTENSION eventstore;
