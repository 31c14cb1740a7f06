-- Tags and bodies of events: every form of append takes them, every form of read returns
-- them, and what they must not be is refused before anything is stored.
CREATE EXTENSION eventstore;
SET TimeZone = 'UTC';
CREATE VIEW events AS SELECT stream, version, type, tags, body FROM es_events;

--
-- Forms of append
--
SELECT version FROM es_append('t-1', 'none', 'a', tags => '{student:s1,course:c1}');
SELECT version FROM es_append('t-1', 1, 'a', '{}', NULL, NULL, NULL, '{b,a,b,a}', '\x00ff');
SELECT version FROM es_append('t-1', 2, 'a', tags => '{}', body => '');
SELECT version FROM es_append('t-1', 3, 'a', tags => NULL, body => NULL);
SELECT version FROM es_append('t-1', 4, 'a', tags => ARRAY['x']::varchar[]);
SELECT version FROM es_append_batch('t-2', 'none', '[{"type": "a", "tags": ["b", "a", "b"], "body": "AP8="},
    {"type": "a", "tags": [], "body": ""}, {"type": "a", "tags": null, "body": null}, {"type": "a", "body": "AA\nE="}]');
SELECT version FROM es_append_batch('t-3', 'none', '{a,a,a,a}', '{"{}","{}","{}","{}"}',
    tags => ARRAY['["b", "a"]', NULL, 'null', '[]']::jsonb[], bodies => ARRAY['\x01', NULL, '', '\x02']::bytea[]);
INSERT INTO es_import (stream, type, tags, body) VALUES ('t-4', 'a', '{b,a}', '\x03'), ('t-4', 'a', '{}', NULL), ('t-4', 'a', DEFAULT, '');
COPY es_import (stream, type, tags, body) FROM STDIN;
t-5	a	{"with, comma","{"}	\\x04
t-5	a	\N	\N
\.
SELECT * FROM events ORDER BY stream, version;

-- By a decider, and by the handler of a message
CREATE FUNCTION decide(state jsonb, command jsonb) RETURNS jsonb LANGUAGE sql
    RETURN jsonb_build_array(jsonb_build_object('type', 'decided', 'tags', command->'tags', 'body', encode('\x05', 'base64')));
SELECT version, events FROM es_execute('t-6', 'decide(jsonb, jsonb)', '{"tags": ["z", "y"]}', 'es_merge(jsonb, es_recorded_event)');
CREATE FUNCTION on_message(payload text, metadata jsonb) RETURNS es_ack_event LANGUAGE sql
    RETURN ROW('e', NULL, 'received', NULL, 't-7', 'none', '{w,v}')::es_ack_event;
SELECT es_receive('topic', 'group', '{}', 'on_message(text, jsonb)');
SELECT * FROM events WHERE stream IN ('t-6', 't-7') ORDER BY stream;

--
-- Retries
--
CREATE FUNCTION append_again(tags text[], body bytea) RETURNS bigint LANGUAGE sql AS
$$ SELECT version FROM es_append('r-1', 'any', 'a', '{}', id => '6ba7b810-9dad-41d1-80b4-00c04fd430c8', tags => tags, body => body) $$;
SELECT append_again('{a,b}', '\x0102');
SELECT append_again('{b,a,b}', '\x0102');
SELECT append_again('{a}', '\x0102');
SELECT append_again(NULL, '\x0102');
SELECT append_again('{a,b}', '\x01');
SELECT append_again('{a,b}', NULL);
INSERT INTO es_import (stream, type, id, tags, body) VALUES
    ('r-1', 'a', '6ba7b810-9dad-41d1-80b4-00c04fd430c8', '{b,a}', '\x0102');
INSERT INTO es_import (stream, type, id, tags, body) VALUES
    ('r-1', 'a', '6ba7b811-9dad-41d1-80b4-00c04fd430c8', '{b,a}', '\x0102'), ('r-1', 'a', '6ba7b811-9dad-41d1-80b4-00c04fd430c8', '{a}', '\x0102');
SELECT count(*) FROM events WHERE stream = 'r-1';

--
-- What is refused
--
CREATE FUNCTION refused(statement text) RETURNS TABLE (code text, message text, detail text) LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE statement;
    code := 'none';
    RETURN NEXT;
EXCEPTION WHEN OTHERS THEN
    GET STACKED DIAGNOSTICS code = RETURNED_SQLSTATE, message = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL;
    RETURN NEXT;
END $$;
SELECT s.what, r.*
  FROM (VALUES ('null element', $$ es_append('x-1', 'any', 'a', tags => '{a,NULL}') $$),
               ('empty', $$ es_append('x-1', 'any', 'a', tags => '{a,""}') $$),
               ('256 bytes', $$ es_append('x-1', 'any', 'a', tags => ARRAY['a', repeat('ä', 128)]) $$),
               ('two dimensions', $$ es_append('x-1', 'any', 'a', tags => '{{a},{b}}') $$),
               ('65', $$ es_append('x-1', 'any', 'a', tags => (SELECT array_agg(n::text) FROM generate_series(1, 65) n)) $$),
               ('long body', $$ es_append('x-1', 'any', 'a', body => convert_to(repeat('x', 268435457), 'UTF8')) $$),
               ('an object', $$ es_append_batch('x-1', 'any', '[{"type": "a"}, {"type": "a", "tags": {}}]') $$),
               ('a string', $$ es_append_batch('x-1', 'any', '[{"type": "a", "tags": "b"}]') $$),
               ('a number in it', $$ es_append_batch('x-1', 'any', '[{"type": "a", "tags": ["a", 1]}]') $$),
               ('a null in it', $$ es_append_batch('x-1', 'any', '[{"type": "a", "tags": [null]}]') $$),
               ('a nested one', $$ es_append_batch('x-1', 'any', '[{"type": "a", "tags": [["a"]]}]') $$),
               ('an empty one in it', $$ es_append_batch('x-1', 'any', '[{"type": "a", "tags": [""]}]') $$),
               ('no base64', $$ es_append_batch('x-1', 'any', '[{"type": "a", "body": "!"}]') $$),
               ('half base64', $$ es_append_batch('x-1', 'any', '[{"type": "a", "body": "AA"}]') $$),
               ('a number as body', $$ es_append_batch('x-1', 'any', '[{"type": "a", "body": 1}]') $$),
               ('another key', $$ es_append_batch('x-1', 'any', '[{"type": "a", "tag": ["a"]}]') $$),
               ('too few', $$ es_append_batch('x-1', 'any', '{a,a}', '{"{}","{}"}', tags => '{"[]"}') $$),
               ('too few bodies', $$ es_append_batch('x-1', 'any', '{a,a}', '{"{}","{}"}', bodies => '{""}') $$),
               ('a scalar', $$ es_append_batch('x-1', 'any', '{a}', '{"{}"}', tags => '{1}') $$),
               ('an object for one', $$ es_append_batch('x-1', 'any', '{a}', '{"{}"}', tags => ARRAY['{"a": 1}']::jsonb[]) $$)) AS s (what, call),
       refused('SELECT ' || s.call) AS r;
SELECT r.* FROM refused($$ INSERT INTO es_import (stream, type, tags) VALUES ('x-1', 'a', '{a}'), ('x-1', 'a', '{""}') $$) AS r;
-- of a decider, and of the handler of a message
CREATE FUNCTION on_tags(payload text, metadata jsonb) RETURNS es_ack_event LANGUAGE sql
    RETURN ROW('e', NULL, 'received', NULL, 'x-1', 'none', payload::text[])::es_ack_event;
SELECT left(t.tags, 20) AS tags, r.*
  FROM (VALUES ('["a", null]'), ('["a", 1]'), ('{}'), ('"a"'), ('[""]'), (to_jsonb(ARRAY[repeat('x', 256)])::text),
               ((SELECT jsonb_agg(n::text)::text FROM generate_series(100, 164) n))) AS t (tags),
       refused(format('SELECT es_execute(''x-1'', ''decide(jsonb, jsonb)'', ''{"tags": %s}'', ''es_merge'')', t.tags)) AS r
 WHERE length(t.tags) < 300 OR r.code <> '54000' OR r.message <> 'too many tags';
SELECT left(t.tags, 20) AS tags, r.*
  FROM (VALUES ('{a,NULL}'), ('{a,""}'), ('{{a},{b}}')) AS t (tags), refused(format('SELECT es_receive(''topic'', ''group'', %L, ''on_tags'')', t.tags)) AS r;
DROP FUNCTION on_tags;
SELECT count(*) FROM events WHERE stream = 'x-1';

-- 64 of 255 bytes, and any character: they are data
SELECT version FROM es_append('x-2', 'any', 'a', tags => (SELECT array_agg(rpad(n::text, 255, 'x')) FROM generate_series(1, 64) n));
SELECT version FROM es_append('x-2', 'any', 'a', tags => ARRAY[E'a\nb', 'it''s', '"q"', '{}', ',', '\', ' ', 'NULL', '𝄞', 'É', E'\u0301']);
SELECT cardinality(tags), octet_length(tags[1]), tags[1:2] = '{}' FROM events WHERE stream = 'x-2' AND version = 1;
SELECT tag FROM events, unnest(tags) WITH ORDINALITY AS t (tag, n) WHERE stream = 'x-2' AND version = 2 ORDER BY n;
-- so many are counted once each
SELECT version FROM es_append('x-3', 'any', 'a', tags => array_fill('a'::text, ARRAY[100000]));

--
-- Limits of bytes count bodies
--
SELECT es_create_subscription('s', category => 'body');
SELECT version FROM es_append_batch('body-1', 'none', ARRAY['a', 'a', 'a'], ARRAY['{}', '{}', '{}']::jsonb[],
    bodies => ARRAY[convert_to(repeat('x', 1000), 'UTF8'), convert_to(repeat('y', 100000), 'UTF8'), '\x00']);
SELECT version, tags, octet_length(body) FROM es_poll('s', max_bytes => 2000);
SELECT es_ack('s', token) IS NOT NULL FROM es_partitions WHERE subscription = 's';
SELECT version, octet_length(body) FROM es_poll('s', max_bytes => 2000);
SELECT es_drop_subscription('s');

DROP FUNCTION decide, on_message, append_again, refused;
DROP VIEW events;
DROP EXTENSION eventstore;
