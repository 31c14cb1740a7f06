-- Messages from outside: each is handled once. es_receive, es_checksum, es_inbox.
CREATE EXTENSION eventstore;
-- What handlers have written, in the transaction of the message.
CREATE TABLE handled (n int GENERATED ALWAYS AS IDENTITY, what text);
-- Acknowledges objects with an "id"; skips all else.
CREATE FUNCTION on_message(payload text, metadata jsonb) RETURNS es_ack_event LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO handled (what) VALUES (payload);
    IF payload NOT LIKE '{"id"%' THEN
        RETURN NULL;
    END IF;
    RETURN ROW(payload::jsonb->>'id', '2026-01-02 03:04:05+00', 'noted', metadata->>'version', payload::jsonb->>'stream', NULL, NULL)::es_ack_event;
END $$;
CREATE FUNCTION receive(payload text, topic text DEFAULT 'topic', group_id text DEFAULT 'group') RETURNS text LANGUAGE sql
    AS $$ SELECT es_receive(topic, group_id, payload, 'on_message(text, jsonb)') $$;
SET timezone = 'UTC';

--
-- The checksum
--
SELECT es_checksum('{"data":"A"}') = 'c1a837e058f7aa037afdf142c013af05' AS a,
       es_checksum('{"a":"b"}') = '188773471ec0f898fd81d272760a027f' AS b,
       es_checksum('{"a": "b"}') = '879646b1d7baab37ff91ef1cc87430f5' AS c,
       es_checksum(NULL) IS NULL AS none;
SELECT count(*) FILTER (WHERE es_checksum(payload) = md5(to_json(payload)::text)), count(*)
  FROM (VALUES (''), ('"'), ('\'), (E'\n\t\r\b\f\x01\x1f\x7f'), ('ü😀'), ('</script>'), (repeat('x"', 100000))) v(payload);

--
-- Once
--
SELECT receive('{"id": 1}');
SELECT id, topic, group_id, entity_id, event_time, event_type, event_version, checksum = es_checksum(payload) AS checksum, payload,
       metadata, position, received_at > clock_timestamp() - interval '1 hour' AS now
  FROM es_inbox;
SELECT receive('{"id": 1}');
SELECT count(*) FROM es_inbox;
SELECT count(*) FROM handled;
-- Another text, topic or group is another message.
SELECT receive('{"id" : 1}'), receive('{"id": 1}', 'other'), receive('{"id": 1}', group_id => 'other'),
       receive('{"id": 1}', 'other', 'other'), receive('{"id": 1}', 'other', 'other');
SELECT count(*) FROM es_inbox;
-- Twice in one statement, and in one transaction.
SELECT receive('{"id": 2}'), receive('{"id": 2}');
BEGIN;
SELECT receive('{"id": 3}');
SELECT receive('{"id": 3}');
SELECT receive('{"id": 2}');
ROLLBACK;
SELECT receive('{"id": 3}');
SELECT count(*) FILTER (WHERE what = '{"id": 2}') AS two, count(*) FILTER (WHERE what = '{"id": 3}') AS three FROM handled;
-- Whatever the handler is now, and whatever else is known of it.
CREATE FUNCTION fails(payload text, metadata jsonb) RETURNS es_ack_event LANGUAGE plpgsql AS $$ BEGIN RAISE 'fails'; END $$;
SELECT es_receive('topic', 'group', '{"id": 3}', 'fails(text, jsonb)', '{"version": "2"}', 0, 5);

--
-- Skipped: nothing is stored of it, and the next time it is handled
--
TRUNCATE handled;
SELECT receive('nothing'), receive('nothing'), receive('', '', '');
SELECT count(*) FROM es_inbox WHERE payload NOT LIKE '{"id"%';
SELECT count(*) FROM handled;
-- A row of nulls is as good as null; one field is enough to acknowledge.
CREATE FUNCTION nulls(payload text, metadata jsonb) RETURNS es_ack_event LANGUAGE plpgsql AS $$
DECLARE ack es_ack_event;
BEGIN
    RETURN ack;
END $$;
CREATE FUNCTION nulls_sql(payload text, metadata jsonb) RETURNS es_ack_event LANGUAGE sql AS $$ SELECT NULL::es_ack_event $$;
CREATE FUNCTION no_row(payload text, metadata jsonb) RETURNS es_ack_event LANGUAGE sql AS $$ SELECT ('x', NULL, NULL, NULL, NULL, NULL, NULL)::es_ack_event WHERE false $$;
CREATE FUNCTION one_field(payload text, metadata jsonb) RETURNS es_ack_event LANGUAGE sql RETURN ROW(NULL, NULL, NULL, metadata->>'a', NULL, NULL, NULL)::es_ack_event;
SELECT es_receive('topic', 'group', 'x', 'nulls(text, jsonb)'), es_receive('topic', 'group', 'x', 'nulls_sql(text, jsonb)'),
       es_receive('topic', 'group', 'x', 'no_row(text, jsonb)'), es_receive('topic', 'group', 'x', 'one_field(text, jsonb)'),
       es_receive('topic', 'group', 'x', 'one_field(text, jsonb)', '{"a": "v"}');
SELECT entity_id, event_time, event_type, event_version, metadata FROM es_inbox WHERE payload = 'x';

--
-- Check, handler and row are one transaction
--
TRUNCATE handled;
CREATE FUNCTION writes_and_fails(payload text, metadata jsonb) RETURNS es_ack_event LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO handled (what) VALUES (payload);
    RAISE EXCEPTION 'no' USING ERRCODE = 'BAD01';
END $$;
SELECT es_receive('topic', 'group', '{"id": 4}', 'writes_and_fails(text, jsonb)');
SELECT count(*) FROM handled;
SELECT receive('{"id": 4}');
BEGIN;
SELECT receive('{"id": 5}');
ROLLBACK;
SELECT what FROM handled;
BEGIN;
SELECT receive('{"id": 5}');
SAVEPOINT s;
SELECT receive('{"id": 6}');
ROLLBACK TO s;
COMMIT;
SELECT what FROM handled;
SELECT receive('{"id": 5}'), receive('{"id": 6}');

--
-- An acknowledged message may be appended to the log
--
SELECT es_receive('topic', 'group', '{"id": "7", "stream": "thing-7"}', 'on_message(text, jsonb)', '{"version": "1", "from": "web"}');
SELECT stream, version, type, data, e.metadata, occurred_at, i.payload FROM es_events e JOIN es_inbox i USING (position);
SELECT es_receive('topic', 'group', '{"id": "7", "stream": "thing-7"}', 'on_message(text, jsonb)');
SELECT receive('{"id": "8", "stream": "thing-7"}');
SELECT version, position FROM es_load('thing-7');
-- What jsonb cannot hold is appended as a string.
CREATE FUNCTION append(payload text, metadata jsonb) RETURNS es_ack_event LANGUAGE sql AS $$
    SELECT NULL::text, NULL::timestamptz, 'came', NULL::text, 'raw-1', NULL, NULL::text[] $$;
SELECT es_receive('raw', '', payload, 'append(text, jsonb)')
  FROM (VALUES ('text'), (''), ('{"a": 1'), ('"json"'), ('null'), ('[1, {"b": 1.50}]'), ('{"a": 1, "a": 2}'), ('"\u0000"'), ('1e1000000'),
               (repeat('[', 100000)), (E'line\nbreak "quoted" \\ ü')) v(payload);
SELECT version, jsonb_typeof(data), CASE WHEN length(data::text) < 50 THEN data END AS data, occurred_at FROM es_load('raw-1');
-- The log's own rules hold; nothing is stored by a call that fails.
CREATE FUNCTION to_stream(payload text, metadata jsonb) RETURNS es_ack_event LANGUAGE sql AS $$
    SELECT 'x', NULL::timestamptz, metadata->>'type', NULL::text, metadata->>'stream', metadata->>'expected', NULL::text[] $$;
SELECT es_receive('topic', 'group', 'bad', 'to_stream(text, jsonb)', '{"stream": "a-1"}');
SELECT es_receive('topic', 'group', 'bad', 'to_stream(text, jsonb)', '{"stream": "", "type": "t"}');
SELECT es_receive('topic', 'group', 'bad', 'to_stream(text, jsonb)', '{"stream": "a-1", "type": ""}');
\set VERBOSITY terse
SELECT es_receive('topic', 'group', 'bad', 'to_stream(text, jsonb)', jsonb_build_object('stream', repeat('x', 2049), 'type', 't'));
\set VERBOSITY default
SELECT count(*) FROM es_inbox WHERE payload = 'bad';
-- A handler may append by itself, and be a projection's event at once.
CREATE FUNCTION appends(payload text, metadata jsonb) RETURNS es_ack_event LANGUAGE plpgsql AS $$
BEGIN
    PERFORM es_append('own-1', 'none', 'by_handler');
    RETURN ROW('own', NULL, 'by_es_receive', NULL, 'own-1', NULL, NULL)::es_ack_event;
END $$;
CREATE FUNCTION project(event es_recorded_event) RETURNS void LANGUAGE sql AS $$ INSERT INTO handled (what) VALUES (event.stream || ' ' || event.type) $$;
TRUNCATE handled;
SELECT es_create_projection('p', 'project(es_recorded_event)', category => 'own', mode => 'sync');
SELECT es_receive('topic', 'group', 'own', 'appends(text, jsonb)');
SELECT what FROM handled ORDER BY n;
SELECT es_drop_projection('p');
-- A handler of a projection may receive.
CREATE FUNCTION project_receive(event es_recorded_event) RETURNS void LANGUAGE sql AS $$ SELECT receive('{"id": "' || event.type || '"}', 'from log') $$;
SELECT es_create_projection('p', 'project_receive(es_recorded_event)', category => 'own');
SELECT es_run_projections();
SELECT entity_id FROM es_inbox WHERE topic = 'from log' ORDER BY id;
SELECT es_drop_projection('p');

--
-- A handler may receive other messages; its own is a duplicate
--
CREATE FUNCTION nested(payload text, metadata jsonb) RETURNS es_ack_event LANGUAGE plpgsql AS $$
BEGIN
    IF payload::int > 0 THEN
        RAISE NOTICE '%: other %, same %', payload, es_receive('nested', '', (payload::int - 1)::text, 'nested(text, jsonb)'),
            es_receive('nested', '', payload, 'nested(text, jsonb)');
    END IF;
    RETURN ROW(payload, NULL, NULL, NULL, NULL, NULL, NULL)::es_ack_event;
END $$;
SELECT es_receive('nested', '', '3', 'nested(text, jsonb)');
SELECT entity_id FROM es_inbox WHERE topic = 'nested' ORDER BY id;

--
-- Isolation levels, read-only
--
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT receive('{"id": "rr"}'), receive('{"id": "rr"}'), receive('skipped');
COMMIT;
BEGIN ISOLATION LEVEL SERIALIZABLE;
SELECT receive('{"id": "rr"}'), receive('{"id": "s"}');
COMMIT;
BEGIN READ ONLY;
SELECT receive('{"id": "ro"}');
ROLLBACK;

--
-- Arguments
--
SELECT es_receive(NULL, 'group', 'x', 'on_message(text, jsonb)');
SELECT es_receive('topic', NULL, 'x', 'on_message(text, jsonb)');
SELECT es_receive('topic', 'group', NULL, 'on_message(text, jsonb)');
SELECT es_receive('topic', 'group', 'x', NULL);
SELECT es_receive('topic', 'group', 'x', 'on_message(text, jsonb)', NULL);
SELECT es_receive('topic', 'group', 'x', 'on_message(text, jsonb)', retry_count => NULL);
SELECT es_receive('topic', 'group', 'x', 'on_message(text, jsonb)', '[]');
SELECT es_receive('topic', 'group', 'x', 'on_message(text, jsonb)', 'null');
SELECT es_receive('topic', 'group', 'x', 'on_message(text, jsonb)', max_retries => -1);
SELECT es_receive('topic', 'group', 'x', 'on_message(text, jsonb)', retry_count => -1);
SELECT es_receive(repeat('x', 1025), 'group', 'x', 'on_message(text, jsonb)');
SELECT es_receive('topic', repeat('x', 1025), 'x', 'on_message(text, jsonb)');
-- The longest ones fit the index, whatever they are made of.
SELECT string_agg(substr(md5(i::text), 1 + i % 2, 31), '') AS long FROM generate_series(1, 40) i \gset
SELECT es_receive(left(:'long', 1024), left(reverse(:'long'), 1024), '{"id": 1}', 'on_message(text, jsonb)');
SELECT es_receive('topic', 'group', 'x', 'nothing(text, jsonb)');
SELECT es_receive('topic', 'group', 'x', 0::regprocedure);
SELECT es_receive('topic', 'group', 'x', '-');
-- What has not the signature of a handler.
CREATE FUNCTION form1(payload text) RETURNS es_ack_event LANGUAGE sql AS 'SELECT NULL::es_ack_event';
CREATE FUNCTION form2(payload text, metadata json) RETURNS es_ack_event LANGUAGE sql AS 'SELECT NULL::es_ack_event';
CREATE FUNCTION form3(payload text, metadata jsonb) RETURNS SETOF es_ack_event LANGUAGE sql AS 'SELECT NULL::es_ack_event';
CREATE FUNCTION form4(payload text, metadata jsonb) RETURNS record LANGUAGE sql AS 'SELECT NULL::es_ack_event';
CREATE FUNCTION form5(payload text, metadata jsonb) RETURNS void LANGUAGE sql AS '';
CREATE FUNCTION form6(payload text, metadata jsonb, more int DEFAULT 1) RETURNS es_ack_event LANGUAGE sql AS 'SELECT NULL::es_ack_event';
CREATE FUNCTION form7(payload varchar, metadata jsonb) RETURNS es_ack_event LANGUAGE sql AS 'SELECT NULL::es_ack_event';
CREATE FUNCTION form8(payload text, metadata jsonb) RETURNS TABLE (entity_id text, event_time timestamptz, event_type text, event_version text, stream text, expected es_expected_version, tags text[])
    LANGUAGE sql AS 'SELECT (NULL::es_ack_event).*';
CREATE FUNCTION form9(payload anyelement, metadata jsonb) RETURNS es_ack_event LANGUAGE sql AS 'SELECT NULL::es_ack_event';
CREATE PROCEDURE form10(payload text, metadata jsonb) LANGUAGE sql AS '';
CREATE DOMAIN ack_domain AS es_ack_event;
CREATE FUNCTION form11(payload text, metadata jsonb) RETURNS ack_domain LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
CREATE FUNCTION form13(state es_ack_event, payload text, metadata jsonb) RETURNS es_ack_event LANGUAGE sql AS 'SELECT NULL::es_ack_event';
CREATE AGGREGATE form12(text, jsonb) (sfunc = form13, stype = es_ack_event);
SELECT es_receive('topic', 'group', 'x', 'form1(text)');
\set VERBOSITY terse
SELECT es_receive('topic', 'group', 'x', 'form2(text, json)');
SELECT es_receive('topic', 'group', 'x', 'form3(text, jsonb)');
SELECT es_receive('topic', 'group', 'x', 'form4(text, jsonb)');
SELECT es_receive('topic', 'group', 'x', 'form5(text, jsonb)');
SELECT es_receive('topic', 'group', 'x', 'form6(text, jsonb, int)');
SELECT es_receive('topic', 'group', 'x', 'form7(varchar, jsonb)');
SELECT es_receive('topic', 'group', 'x', 'form8(text, jsonb)');
SELECT es_receive('topic', 'group', 'x', 'form9(anyelement, jsonb)');
SELECT es_receive('topic', 'group', 'x', 'form10(text, jsonb)');
SELECT es_receive('topic', 'group', 'x', 'form11(text, jsonb)');
SELECT es_receive('topic', 'group', 'x', 'form12(text, jsonb)');
SELECT es_receive('topic', 'group', 'x', 'es_receive(text, text, text, es_function, jsonb, bigint, bigint, text)');
\set VERBOSITY default

--
-- A message that has an id of its sender is known by that
--
TRUNCATE es_inbox, handled RESTART IDENTITY;
CREATE FUNCTION receive_id(message_id text, payload text, topic text DEFAULT 'topic', group_id text DEFAULT 'group') RETURNS text LANGUAGE sql
    AS $$ SELECT es_receive(topic, group_id, payload, 'on_message', message_id => message_id) $$;
SELECT receive_id('evt_1', '{"id": "evt_1"}'), receive_id('evt_1', '{"id": "evt_1", "attempt": 2}'), receive_id('evt_2', '{"id": "evt_1"}'),
       receive_id('evt_1', '{"id": "evt_1"}', 'other'), receive_id('evt_1', '{"id": "evt_1"}', group_id => 'other'), receive_id(NULL, '{"id": "evt_1"}');
-- An id is no payload, and no payload is an id.
SELECT receive_id('{"id": 9}', '{"id": 8}'), receive_id(NULL, '{"id": 9}'), receive_id('["a"]', '{"id": 7}'), receive_id('a', '{"id": 6}');
SELECT message_id, checksum = es_checksum(payload) AS by_payload, payload FROM es_inbox ORDER BY id;
SELECT receive_id('', '{"id": 1}');
SELECT receive_id(repeat('x', 1025), '{"id": 1}');
SELECT receive_id(repeat('x', 1024), '{"id": 1}', repeat('t', 1024), repeat('g', 1024));
-- One that is skipped is handled again.
SELECT receive_id('skip', 'skip'), receive_id('skip', '{"id": "now"}'), receive_id('skip', 'skip');

--
-- A tombstone: a message without payload
--
TRUNCATE es_inbox, handled RESTART IDENTITY;
CREATE FUNCTION on_tombstone(payload text, metadata jsonb) RETURNS es_ack_event LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO handled (what) VALUES (coalesce(payload, 'tombstone'));
    RETURN ROW(metadata->>'key', NULL, 'deleted', NULL, metadata->>'stream', NULL, NULL)::es_ack_event;
END $$;
CREATE FUNCTION on_payload(payload text, metadata jsonb) RETURNS es_ack_event STRICT LANGUAGE sql
RETURN ROW('x', NULL, NULL, NULL, NULL, NULL, NULL)::es_ack_event;
SELECT es_receive('keys', 'g', NULL, 'on_tombstone', '{"key": "a", "offset": 1}'), es_receive('keys', 'g', NULL, 'on_tombstone', '{"key": "b", "offset": 2}'),
       es_receive('keys', 'g', NULL, 'on_tombstone', '{"offset": 1, "key": "a"}'), es_receive('keys', 'g', NULL, 'on_tombstone', message_id => '7'),
       es_receive('keys', 'g', NULL, 'on_tombstone', '{"key": "c"}', message_id => '7');
SELECT entity_id, message_id, payload, metadata FROM es_inbox ORDER BY id;
SELECT what, count(*) FROM handled GROUP BY what;
-- A strict function is not called, and so skips it.
SELECT es_receive('keys', 'strict', NULL, 'on_payload', '{"key": "a"}'), es_receive('keys', 'strict', 'a', 'on_payload');
SELECT es_receive('keys', 'g', NULL, 'on_tombstone', '{"key": "a", "stream": "key-a"}');
SELECT version, type, data FROM es_load('key-a');
SELECT es_receive('keys', 'g', NULL, 'on_tombstone');

--
-- The handler may expect a version of the stream
--
SELECT es_receive('expected', 'g', payload, 'to_stream', jsonb_build_object('stream', 'order-1', 'type', 'paid', 'expected', expected))
  FROM (VALUES ('1', 'none'), ('2', '1'), ('3', 'exists'), ('4', 'any'), ('5', NULL)) AS t (payload, expected);
SELECT es_receive('expected', 'g', '6', 'to_stream', '{"stream": "order-2", "type": "paid", "expected": "exists"}');
SELECT es_receive('expected', 'g', '6', 'to_stream', '{"stream": "order-1", "type": "paid", "expected": 4}');
SELECT es_receive('expected', 'g', '6', 'to_stream', '{"type": "paid", "expected": 4}');
SELECT es_receive('expected', 'g', '6', 'to_stream', '{"stream": "order-2", "type": "paid", "expected": "exists"}', max_retries => 0, message_id => 'six');
SELECT es_receive('expected', 'g', NULL, 'to_stream', '{"stream": "order-2", "type": "paid", "expected": "exists"}', max_retries => 0);
SELECT message_id, payload, sqlstate, message FROM es_failures ORDER BY id;
SELECT es_stream_version('order-1'), es_stream_version('order-2');
-- Tried again when its cause is gone, under the same id.
SELECT version FROM es_append('order-2', 'none', 'placed');
SELECT es_retry(id) FROM es_failures ORDER BY id;
SELECT message_id, payload, position IS NOT NULL AS appended FROM es_inbox WHERE topic = 'expected' ORDER BY id DESC LIMIT 2;
SELECT es_receive('expected', 'g', 'again', 'to_stream', '{"stream": "order-2", "type": "paid"}', message_id => 'six');

--
-- Listing
--
TRUNCATE es_inbox RESTART IDENTITY;
INSERT INTO es_inbox (topic, group_id, checksum, payload, event_time, received_at)
SELECT 't', 'g', n, n, now() + event_time * interval '1s', now() + received_at * interval '1s'
  FROM (VALUES (1, NULL, -100), (2, NULL, -200), (3, -300, -300), (4, NULL, NULL), (5, -400, NULL), (6, -500, NULL)) v(n, event_time, received_at);
SELECT string_agg(id::text, ' ') FROM es_inbox();
SELECT string_agg(id::text, ' ') FROM es_inbox(max_count => 2);
SELECT string_agg(id::text, ' ') FROM es_inbox(max_count => 2, skip => 3);
SELECT count(*) FROM es_inbox(max_count => 0);
-- Of one time: the newest received first, then the greatest id.
UPDATE es_inbox SET event_time = '2026-01-01';
SELECT string_agg(id::text, ' ') FROM es_inbox();
UPDATE es_inbox SET received_at = '2026-01-01';
SELECT string_agg(id::text, ' ') FROM es_inbox();
-- By default 20; null is no limit.
TRUNCATE es_inbox RESTART IDENTITY;
INSERT INTO es_inbox (topic, group_id, checksum, payload, entity_id, event_type)
SELECT 'topic ' || i % 2, 'group ' || i % 3, i, i, 'entity ' || i % 5, 'type ' || i % 7 FROM generate_series(1, 210) i;
SELECT count(*) FROM es_inbox();
SELECT count(*) FROM es_inbox(max_count => NULL);
SELECT count(*) FROM es_inbox('entity 1', max_count => NULL);
SELECT count(*) FROM es_inbox(topic => 'topic 1', max_count => NULL);
SELECT count(*) FROM es_inbox(group_id => 'group 1', max_count => NULL);
SELECT count(*) FROM es_inbox(event_type => 'type 1', max_count => NULL);
SELECT id FROM es_inbox('entity 1', 'topic 1', 'group 1', 'type 1');
SELECT count(*) FROM es_inbox('nowhere');
-- It is inlined.
DO $$
DECLARE line text;
BEGIN
    FOR line IN EXPLAIN SELECT id FROM es_inbox(topic => 't', group_id => 'g') LOOP
        ASSERT line NOT LIKE '%Function Scan%', line;
    END LOOP;
END $$;

SET client_min_messages = warning;
DROP AGGREGATE form12(text, jsonb);
DROP FUNCTION receive, receive_id, project, project_receive, form4, form5;
DROP PROCEDURE form10;
DROP EXTENSION eventstore CASCADE;
DROP TABLE handled;
