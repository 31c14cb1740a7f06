-- Upcasters: events of earlier schema versions are upcast to the current one,
-- wherever they are read; what is stored stays.
CREATE EXTENSION eventstore;
CREATE SCHEMA up;

-- Three versions of an event: a name, then its parts, then a greeting, too; and which upcaster is called where.
CREATE FUNCTION up.from_1(data jsonb) RETURNS jsonb LANGUAGE sql IMMUTABLE AS $$
    SELECT data - 'name' || jsonb_build_object('first', split_part(data->>'name', ' ', 1), 'last', split_part(data->>'name', ' ', 2)) $$;
CREATE FUNCTION up.from_2(data jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
    RETURN data || jsonb_build_object('greeting', greeting() || ' ' || (data->>'first'));
END $$;
CREATE FUNCTION up.greeting() RETURNS text LANGUAGE sql AS $$ SELECT 'Dear' $$;
CREATE FUNCTION public.greeting() RETURNS text LANGUAGE sql AS $$ SELECT 'Hi' $$;

SELECT version FROM es_append('person-1', 'none', 'named', '{"name": "Ann Smith"}');
SELECT version FROM es_append('person-1', 1, 'named', '{"name": "Bob Jones"}', '{"user": 7}');
SELECT version FROM es_append('person-1', 2, 'named', '{"first": "Cid", "last": "May"}', '{"schema_version": 2}');
SELECT version FROM es_append('person-1', 3, 'named', '{"first": "Dan", "last": "Orr", "greeting": "Hello"}', '{"schema_version": 3}');
SELECT version FROM es_append('person-1', 4, 'named', '{"name": "Eva Poe"}', '{"schema_version": "x"}');
SELECT version FROM es_append('person-1', 5, 'named', '{"name": "Fay Ray"}', '{"schema_version": 0}');
SELECT version FROM es_append('person-1', 6, 'named', '{"name": "Gus Sax"}', '{"schema_version": 1.0, "user": 8}');
SELECT version FROM es_append('person-1', 7, 'named', '{"name": "Hal Tau"}', '{"schema_version": null}');
SELECT version FROM es_append('person-1', 8, 'other', '{"name": "Ida Urn"}');
SELECT version FROM es_append('person-1', 9, 'name', '{"name": "Jay Vey"}');
SELECT version FROM es_append('person-1', 10, 'named2', '{"name": "Kim Wix"}');

-- Without an upcaster the plans are those of the table, and so are the rows.
SET enable_seqscan = off;
SET enable_bitmapscan = off;
CREATE FUNCTION columns_of(query text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE line text;
BEGIN
    FOR line IN EXECUTE 'EXPLAIN (COSTS OFF, VERBOSE) ' || query LOOP
        IF line LIKE '%Output: %es_upcast%' THEN
            RETURN 'upcast';
        END IF;
    END LOOP;
    RETURN 'as they are';
END $$;
CREATE FUNCTION all_columns() RETURNS TABLE (query text, columns text) LANGUAGE sql AS $$
    SELECT q, columns_of(q)
      FROM unnest(ARRAY['SELECT * FROM es_load(''person-1'')', 'SELECT * FROM es_load_backward(''person-1'')', 'SELECT * FROM es_read()',
                        'SELECT * FROM es_read_category(''person'')', 'SELECT stream, version FROM es_load(''person-1'')',
                        'SELECT es_upcast(e) FROM es_events e', 'SELECT * FROM es_events']) q $$;
SELECT * FROM all_columns();
SELECT count(*) FROM es_load('person-1') JOIN es_events e USING (id, data) WHERE e.metadata IS NOT DISTINCT FROM es_load.metadata;
PREPARE load AS SELECT version, data, metadata FROM es_load('person-1') WHERE version <= 3;
EXECUTE load;
CREATE FUNCTION first_data() RETURNS jsonb LANGUAGE plpgsql AS $$ BEGIN RETURN (SELECT data FROM es_load('person-1', 0, 1)); END $$;
SELECT first_data();

--
-- Reading
--
SELECT es_define_upcaster('named', 1, 'up.from_1(jsonb)');
EXECUTE load;
SELECT first_data();
-- Its names are looked up in the search_path of its definition.
SET search_path = up, public;
SELECT public.es_define_upcaster('named', 2, 'from_2(jsonb)');
RESET search_path;
EXECUTE load;
SELECT first_data();
SELECT * FROM all_columns();
SELECT type, from_version, upcaster, owner = current_user AS owner, search_path FROM es_upcasters ORDER BY 1, 2;
SELECT * FROM es_describe_event_type('named');
SELECT version, type, data, metadata FROM es_load('person-1');
SELECT version, data->>'greeting' AS greeting, metadata FROM es_load_backward('person-1', 5, 2);
SELECT position, data->>'greeting' AS greeting, metadata FROM es_read(0, 3);
SELECT position, data->>'greeting' AS greeting, metadata FROM es_read_category('person', 1, 2, '{named}');
SELECT version, data->>'greeting' AS greeting, metadata FROM es_last_event('person-1', 'named');
SELECT e.version, e.data->>'greeting' AS greeting, e.metadata FROM es_events s, es_event(s.id) e WHERE s.version = 2;
-- What is stored stays.
SELECT version, data, metadata FROM es_events ORDER BY position LIMIT 2;
-- Not every query needs all of it.
SELECT count(*) FROM es_load('person-1');
SELECT array_agg(version) FROM es_load('person-1') WHERE data->>'first' = 'Ann';
SELECT version FROM es_load('person-1') WHERE data ? 'greeting' ORDER BY version DESC LIMIT 1;
-- Only rows that a LIMIT lets through are upcast, unless they are to be sorted in another way.
CREATE SEQUENCE calls;
CREATE FUNCTION up.count_calls(data jsonb) RETURNS jsonb LANGUAGE sql AS $$ SELECT data || jsonb_build_object('call', nextval('calls')) $$;
SELECT es_define_upcaster('counted', 1, 'up.count_calls(jsonb)');
SELECT version FROM es_append_batch('counted-1', 'none', (SELECT jsonb_agg('{"type": "counted"}'::jsonb) FROM generate_series(1, 100)));
SELECT version, data FROM es_load('counted-1') LIMIT 2;
SELECT version, data FROM es_read_category('counted') LIMIT 2;
SELECT version, data FROM es_load('counted-1') ORDER BY recorded_at, version DESC LIMIT 2;
SELECT version, metadata FROM es_load('counted-1') LIMIT 1;
SELECT count(*) FROM es_load('counted-1');
SELECT last_value FROM calls;

--
-- es_upcast(event)
--
SELECT bool_and(es_upcast(e) = l) AS same FROM es_events e JOIN es_load('person-1') l USING (id);
SELECT bool_and(es_upcast(es_upcast(e)) = es_upcast(e)) AS idempotent, bool_and(es_upcast(e) = e::es_recorded_event) AS nothing FROM es_events e WHERE stream = 'person-1';
SELECT es_upcast(NULL) IS NULL AS null_is_null;
SELECT (es_upcast((7, 1, NULL, NULL, NULL, 'x-1', 'named', '{"name": "Lea Xen"}', '{"schema_version": [1]}', NULL, NULL)::es_recorded_event)).data;
SELECT (es_upcast((7, 1, NULL, NULL, NULL, 'x-1', 'named', '{"name": "Lea Xen"}', '[1]', NULL, NULL)::es_recorded_event)).data;
SELECT (es_upcast((NULL, NULL, NULL, NULL, NULL, NULL, 'named', NULL, NULL, NULL, NULL)::es_recorded_event)).metadata;
SELECT (es_upcast((NULL, NULL, NULL, NULL, NULL, NULL, NULL, '{}', NULL, NULL, NULL)::es_recorded_event)).metadata;
SELECT (es_upcast((7, 1, NULL, NULL, NULL, 'x-1', 'named', '{"name": "Lea Xen"}', NULL, NULL, NULL)::es_recorded_event)).*;

--
-- Definitions change
--
-- In a transaction that is rolled back; by direct SQL.
BEGIN;
SELECT es_define_upcaster('named', 3, 'up.count_calls(jsonb)');
SELECT metadata FROM es_load('person-1', 0, 1);
SAVEPOINT s;
DELETE FROM es_upcasters WHERE from_version > 1;
SELECT metadata FROM es_load('person-1', 0, 1);
ROLLBACK TO s;
SELECT metadata FROM es_load('person-1', 0, 1);
ROLLBACK;
SELECT metadata FROM es_load('person-1', 0, 1);
-- A statement in a function uses what it has looked up.
DO $$
DECLARE before jsonb; after jsonb; event es_events;
BEGIN
    SELECT * INTO event FROM es_events WHERE stream = 'person-1' AND version = 1;
    FOR i IN 1..2 LOOP
        after := (es_upcast(event)).metadata;
        IF i = 1 THEN
            before := after;
            PERFORM es_define_upcaster('named', 2, NULL);
        END IF;
    END LOOP;
    RAISE NOTICE '% then %', before, after;
    RAISE 'back';
EXCEPTION WHEN raise_exception THEN
    NULL;
END $$;
-- A version without an upcaster changes nothing.
SELECT es_define_upcaster('named', 5, 'up.count_calls(jsonb)');
SELECT metadata, data ? 'call' AS called FROM es_load('person-1', 0, 1);
SELECT es_define_upcaster('named', 5, NULL);
SELECT es_define_upcaster('named', 5, NULL);
-- It is replaced.
SELECT es_define_upcaster('named', 2, 'up.from_2(jsonb)');
SELECT data->>'greeting' AS greeting FROM es_load('person-1', 0, 1);
SET search_path = up, public;
SELECT public.es_define_upcaster('named', 2, 'from_2(jsonb)');
RESET search_path;

--
-- Appending
--
-- An event of an earlier version is checked, and identified, as of the current version; a later upcaster is not called.
SELECT es_define_event_type('named', '{first, last}', '{first, last}', '{"first": "s", "last": "s", "greeting": "n"}', 2);
SELECT version FROM es_append('person-2', 'none', 'named', '{"name": "Ann Smith"}', '{"schema_version": 1}');
SELECT version FROM es_append('person-2', 'none', 'named', '{"first": "Ann", "last": "Smith"}');
SELECT data, metadata, id = es_digest('named', '{"first": "Ann", "last": "Smith"}', '{first, last}') AS by_key FROM es_events WHERE stream = 'person-2';
SELECT data, metadata FROM es_load('person-2');
SELECT es_append('person-2', 'any', 'named', '{"name": "Zoe"}');
SELECT es_append('person-2', 'any', 'named', '{"name": 5}', '{"schema_version": 2}');
INSERT INTO es_import (stream, type, data, metadata) VALUES ('person-2', 'named', '{"name": "Ann Smith"}', '{"schema_version": 1}'), ('person-2', 'named', '{"name": "Al Low"}', '{"schema_version": 1}');
SELECT version, data FROM es_events WHERE stream = 'person-2' ORDER BY version;
SELECT es_define_event_type('named', '{first, middle}', schema_version => 2);
SELECT es_append('person-3', 'none', 'named', '{"name": "Ann Smith"}', '{"schema_version": 1}');
SELECT es_append_batch('person-3', 'none', '[{"type": "other"}, {"type": "named", "data": {"name": "Ann Smith"}, "metadata": {"schema_version": 1}}]');
-- An upcaster that changes the definition meanwhile: the rest uses the new one.
CREATE FUNCTION up.define(data jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
    PERFORM es_define_event_type('defined', '{a}', schema_version => 2), es_define_upcaster('defined', 1, NULL);
    RETURN data;
END $$;
SELECT es_define_event_type('defined', '{}', '{a}', schema_version => 2), es_define_upcaster('defined', 1, 'up.define(jsonb)');
SELECT version FROM es_append('person-4', 'none', 'defined', '{"a": 1}', '{"schema_version": 1}');
SELECT substr(id::text, 15, 1) AS id_version FROM es_events WHERE stream = 'person-4';
SELECT required, composite_key, upcasters FROM es_describe_event_type('defined');

-- A rolling deployment: writers of the old version say so; those of the new one come one by one.
SELECT version FROM es_append('door-1', 'none', 'opened', '{"by": "ann"}', '{"schema_version": 1}');
CREATE FUNCTION up.opened_from_1(data jsonb) RETURNS jsonb LANGUAGE sql IMMUTABLE AS $$ SELECT jsonb_build_object('who', data->'by', 'how', 'key') $$;
BEGIN;
SELECT es_define_upcaster('opened', 1, 'up.opened_from_1(jsonb)');
SELECT es_define_event_type('opened', '{who, how}', schema_version => 2);
COMMIT;
SELECT version FROM es_append('door-1', 1, 'opened', '{"by": "bob"}', '{"schema_version": 1}');
SELECT version FROM es_append('door-1', 2, 'opened', '{"who": "cid", "how": "code"}', '{"schema_version": 2}');
SELECT version FROM es_append('door-1', 3, 'opened', '{"who": "dan", "how": "code"}');
SELECT es_append('door-1', 4, 'opened', '{"by": "eva"}');
SELECT version, data, metadata FROM es_load('door-1');

--
-- Projections and subscriptions
--
CREATE TABLE seen (how text, stream text, version bigint, data jsonb, metadata jsonb);
CREATE FUNCTION note(event es_recorded_event) RETURNS void LANGUAGE sql AS $$ INSERT INTO seen VALUES ('handler', event.stream, event.version, event.data, event.metadata) $$;
CREATE SCHEMA handlers;
CREATE FUNCTION handlers.on_opened(event es_recorded_event) RETURNS void LANGUAGE sql AS $$ INSERT INTO seen VALUES ('schema', event.stream, event.version, event.data, event.metadata) $$;
SELECT es_create_projection('h', 'note(es_recorded_event)', category => 'door');
SELECT es_create_projection('s', handler_schema => 'handlers', category => 'door');
SELECT es_create_projection('q', query => 'INSERT INTO seen SELECT ''query'', stream, version, data, metadata FROM new_events', category => 'door');
CALL es_work();
SELECT * FROM seen ORDER BY version, how;
TRUNCATE seen;
SELECT es_alter_projection('h', mode => 'sync'), es_alter_projection('s', mode => 'sync'), es_alter_projection('q', mode => 'sync');
SELECT version FROM es_append('door-2', 'none', 'opened', '{"by": "ann"}', '{"schema_version": 1}');
SELECT * FROM seen ORDER BY version, how;
TRUNCATE seen;
-- A cached plan of a query sees another batch, and other upcasters.
CREATE OR REPLACE FUNCTION up.opened_from_1(data jsonb) RETURNS jsonb LANGUAGE sql IMMUTABLE AS $$ SELECT jsonb_build_object('who', data->'by', 'how', 'unknown') $$;
SELECT version FROM es_append('door-2', 1, 'opened', '{"by": "bob"}', '{"schema_version": 1}');
SELECT es_define_upcaster('opened', 2, 'up.count_calls(jsonb)');
SELECT setval('calls', 1000);
SELECT version FROM es_append('door-2', 2, 'opened', '{"by": "cid"}', '{"schema_version": 1}');
SELECT es_define_upcaster('opened', 2, NULL);
SELECT how, version, data - 'call' AS data, data ? 'call' AS called, metadata FROM seen ORDER BY version, how;
SELECT es_drop_projection('h'), es_drop_projection('s'), es_drop_projection('q');
-- A rebuild.
CREATE TABLE door (stream text PRIMARY KEY, who text, how text);
SELECT es_create_projection('door', tables => '{door}', category => 'door', query => $$
    INSERT INTO door SELECT DISTINCT ON (stream) stream, data->>'who', data->>'how' FROM new_events ORDER BY stream, version DESC
    ON CONFLICT (stream) DO UPDATE SET who = excluded.who, how = excluded.how $$);
CALL es_work();
SELECT * FROM door ORDER BY stream;
CREATE OR REPLACE FUNCTION up.opened_from_1(data jsonb) RETURNS jsonb LANGUAGE sql IMMUTABLE AS $$ SELECT jsonb_build_object('who', upper(data->>'by'), 'how', 'key') $$;
SELECT es_rebuild_projection('door');
SELECT * FROM door ORDER BY stream;

SELECT es_create_subscription('doors', category => 'door');
SELECT position, stream, version, data, metadata FROM es_poll('doors', max_count => 3);

-- An upcaster that fails: its event is parked, and handled when the upcaster works again.
CREATE OR REPLACE FUNCTION up.opened_from_1(data jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
    RETURN jsonb_build_object('who', data->'by', 'how', 1 / (CASE WHEN data->>'by' = 'bob' THEN 0 ELSE 1 END));
END $$;
TRUNCATE seen;
SELECT es_create_projection('parks', 'note(es_recorded_event)', category => 'door', on_failure => 'park', max_attempts => 1);
CALL es_work();
SELECT stream, version, data->>'who' AS who FROM seen ORDER BY 1, 2;
SELECT stream, position, sqlstate, message, regexp_replace(context, 'id [-0-9a-f]+', 'id ...') AS context FROM es_failures('parks') ORDER BY position;
SELECT array_agg(version) FROM es_load('door-1');
SELECT data FROM es_load('door-1');
SELECT es_seek('doors', 0);
SELECT version FROM es_poll('doors');
SELECT data->>'who' FROM es_poll('doors', max_count => 1);
SELECT es_append('door-3', 'none', 'opened', '{"by": "bob"}', '{"schema_version": 1}');
CREATE OR REPLACE FUNCTION up.opened_from_1(data jsonb) RETURNS jsonb LANGUAGE sql IMMUTABLE AS $$ SELECT jsonb_build_object('who', data->>'by', 'how', 'key') $$;
SELECT sum(es_retry(id)) FROM es_failures('parks') WHERE sqlstate IS NOT NULL;
SELECT stream, version, data->>'who' AS who FROM seen ORDER BY 1, 2;
SELECT es_drop_projection('parks'), es_drop_projection('door'), es_drop_subscription('doors');

--
-- Whose rights
--
CREATE ROLE es_test_upcaster;
CREATE ROLE es_test_reader;
GRANT SELECT ON es_events TO es_test_reader;
GRANT EXECUTE ON FUNCTION es_define_upcaster TO es_test_upcaster;
GRANT CREATE, USAGE ON SCHEMA up TO es_test_upcaster;
CREATE TABLE secret (n int);
INSERT INTO secret VALUES (42);
GRANT SELECT ON secret TO es_test_upcaster;
SET ROLE es_test_upcaster;
CREATE FUNCTION up.who(data jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
    RETURN data || jsonb_build_object('who', current_user, 'secret', (SELECT n FROM secret), 'path', current_setting('search_path'));
END $$;
REVOKE EXECUTE ON FUNCTION up.who FROM PUBLIC;
SELECT es_define_upcaster('other', 1, 'up.who(jsonb)');
SET ROLE es_test_reader;
SET search_path = pg_temp, public;
CREATE TEMP TABLE secret (n int);
INSERT INTO secret VALUES (13);
SELECT data, current_user, current_setting('search_path') FROM es_load('person-1') WHERE type = 'other';
SELECT up.who('{}');
RESET search_path;
RESET ROLE;
-- It leaves nothing behind that would run as the reader, and cannot become it.
CREATE OR REPLACE FUNCTION up.who(data jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE data->>'do';
    RETURN data;
END $$;
SELECT es_define_upcaster('does', 1, NULL);
SET ROLE es_test_upcaster;
SELECT es_define_upcaster('does', 1, 'up.who(jsonb)');
RESET ROLE;
SELECT version FROM es_append('does-1', 'none', 'does', '{"do": "RESET ROLE"}');
SELECT version FROM es_append('does-2', 'none', 'does', '{"do": "CREATE TEMP TABLE t (n int)"}');
SELECT version FROM es_append('does-3', 'none', 'does', '{"do": "SET search_path = nowhere"}');
SELECT data FROM es_load('does-1');
SELECT data FROM es_load('does-2');
SELECT data, current_setting('search_path') FROM es_load('does-3');
SHOW search_path;
-- Its owner may no longer execute it, or is gone; it is gone, or another function.
ALTER FUNCTION up.who OWNER TO CURRENT_USER;
REVOKE EXECUTE ON FUNCTION up.who FROM es_test_upcaster;
SELECT data FROM es_load('does-1');
DROP FUNCTION up.who;
SELECT data FROM es_load('does-1');
CREATE FUNCTION up.who(data jsonb) RETURNS text LANGUAGE sql AS $$ SELECT 'a text' $$;
SELECT data FROM es_load('does-1');
DROP OWNED BY es_test_upcaster;
DROP ROLE es_test_upcaster;
SELECT data FROM es_load('does-1');
SELECT array_agg(version) FROM es_load('does-1');

--
-- What is refused
--
CREATE FUNCTION up.nothing(data jsonb) RETURNS jsonb LANGUAGE sql AS $$ SELECT NULL::jsonb $$;
SELECT es_define_upcaster('other', 1, 'up.nothing(jsonb)');
SELECT data FROM es_load('person-1') WHERE type = 'other';
SELECT (es_upcast((NULL, NULL, NULL, NULL, NULL, NULL, 'other', '{}', NULL, NULL, NULL)::es_recorded_event)).data;
CREATE FUNCTION up.set_of(data jsonb) RETURNS SETOF jsonb LANGUAGE sql AS $$ SELECT data $$;
SELECT es_define_upcaster('other', 1, 'up.set_of(jsonb)');
SELECT es_define_upcaster('other', 1, 'lower(text)');
SELECT es_define_upcaster('other', 1, 'up.who(jsonb)');
SELECT es_define_upcaster('other', 1, 0::oid);
SELECT es_define_upcaster('other', 1, 'up.nowhere(jsonb)');
SELECT es_define_upcaster('other', 0, 'up.nothing(jsonb)');
SELECT es_define_upcaster('other', 2147483647, 'up.nothing(jsonb)');
SELECT es_define_upcaster('other', 2147483646, 'up.from_1(jsonb)');
SELECT es_define_upcaster('other', NULL, 'up.nothing(jsonb)');
SELECT es_define_upcaster(NULL, 1, 'up.nothing(jsonb)');
SELECT es_define_upcaster('', 1, 'up.nothing(jsonb)');
SELECT es_define_upcaster('other', 7, NULL);
SET ROLE es_test_reader;
SELECT es_define_upcaster('other', 1, NULL);
RESET ROLE;
BEGIN READ ONLY;
SELECT es_define_upcaster('other', 1, NULL);
ROLLBACK;
CREATE TRIGGER t AFTER INSERT ON seen FOR EACH STATEMENT EXECUTE FUNCTION es_event_types_changed();
INSERT INTO seen (how) VALUES ('x');
DROP TRIGGER t ON seen;

-- A type with upcasters alone is described, and dropped with them.
SELECT * FROM es_describe_event_type('other');
SELECT es_drop_event_type(t) FROM unnest('{other, named, opened, counted, does, defined}'::text[]) t;
SELECT count(*) FROM es_upcasters;
SELECT * FROM all_columns();
EXECUTE load;

DROP OWNED BY es_test_reader;
DROP ROLE es_test_reader;
SET client_min_messages = warning;
DROP SCHEMA up, handlers CASCADE;
DROP TABLE seen, door, secret;
DROP FUNCTION columns_of, all_columns, first_data, public.greeting;
DROP SEQUENCE calls;
DROP EXTENSION eventstore CASCADE;
