-- Names
-- each: 'account-1' | 'account' | '' | NULL | '-' | '--' | 'a-' | '-1' | 'a-b-c' | 'a-1+2' | 'a-1+2+3' | 'a-+' | 'a+b' | 'a:command-1' | 'é-ü' | ' a - b '
SELECT category($each), is_category($each), id($each), cardinal_id($each);
-- each: 'account-1' | 'account' | '' | NULL | 'a-1+2' | '-' | 'é-ü' | 'a'
SELECT hash_64($each);
-- each: category('a-b'::text::varchar) | id(stream_name => 'a-b') | cardinal_id(stream_name => 'a-b+c') | is_category(stream_name => 'a') | hash_64(value => 'a')
SELECT $each;
SELECT message_store_version();
-- each: category | is_category | id | cardinal_id | hash_64
SELECT pg_typeof($each('a-1'));
-- each: acquire_lock('lock-1') | acquire_lock('lock') | acquire_lock('') | acquire_lock(NULL) | acquire_lock(stream_name => 'lock-1+2')
SELECT $each;
SELECT category(1);
SELECT category();

-- An empty store
-- each: stream_summary | type_summary | stream_type_summary | type_stream_summary | category_type_summary | type_category_summary | messages
SELECT * FROM $each;
SELECT * FROM get_stream_messages('account-1');
SELECT * FROM get_category_messages('account');
SELECT * FROM get_last_stream_message('account-1');
SELECT stream_version('account-1');

-- Writes
SELECT write_message(':id1', 'account-1', 'Opened', '{"owner": "Ann"}');
SELECT write_message(':id2', 'account-1', 'Deposited', '{"amount": 10}', '{"user": "Ann"}');
SELECT write_message(':id3', 'account-1', 'Deposited', '{"amount": 20}', NULL, 1);
SELECT write_message(':id4', 'account-2', 'Opened', '{}', '{"correlationStreamName": "teller-7"}', -1);
SELECT write_message(id => ':id5', stream_name => 'account-2', type => 'Closed', data => '{"deep": {"list": [1, 2.50, null, "é"]}}', metadata => '{"correlationStreamName": "other"}', expected_version => 0);
SELECT pg_typeof(write_message(':id', 'account-3', 'Opened', '{}'));
SELECT * FROM write_message(':id', 'account-3', 'Closed', '{}');
-- each: '[1, 2]' | '"text"' | '1.50' | 'true' | '{"b": 1, "a": 2, "a": 3}' | '[]' | NULL
SELECT write_message(':id', 'data-1', 'Written', $each);
SELECT type, data FROM get_stream_messages('data-1');
-- differs: data null ~ None
SELECT write_message(':id', 'null-1', 'Written', 'null'), (SELECT data FROM get_last_stream_message('null-1'));
-- differs: data null ~ None
SELECT data FROM get_last_stream_message('null-1');
-- each: '{}' | '{"a": {"b": null}}' | NULL
SELECT write_message(':id', 'metadata-1', 'Written', '{}', $each);
-- differs: metadata ~ 'error', '22023', 'metadata must be an object'
-- each: '[1]' | '"text"' | '1' | 'true'
SELECT write_message(':id', 'metadata-2', 'Written', '{}', $each);
SELECT write_message(':id', 'metadata-3', 'Written', '{}', 'null');
-- differs: metadata ~ True
SELECT metadata IS NULL FROM get_last_stream_message('metadata-3');
SELECT metadata FROM get_stream_messages('metadata-1');
-- each: 'one' | 'a-1+2' | 'é-1' | 'a b-c d' | '-' | '-x' | 'quote''d-1' | 'a:command-1' | 'a%s-1'
SELECT write_message(':id', $each, 'Written', '{}');
-- each: 'é' | 'a b' | 'quote''d' | 'Ünïcode' | '%'
SELECT write_message(':id', 'types-1', $each, '{}');

-- Errors of writes
-- each: -1 | 0 | 1 | 3 | -2 | 9223372036854775807 | -9223372036854775808 | 100
SELECT write_message(':id', 'account-1', 'Tried', '{}', NULL, $each);
-- each: 0 | 1 | -2
SELECT write_message(':id', 'absent-1', 'Tried', '{}', NULL, $each);
SELECT write_message(':id1', 'account-1', 'Opened', '{"owner": "Ann"}');
SELECT write_message(':id1', 'account-1', 'Opened', '{"owner": "Ann"}', NULL, 2);
SELECT write_message(':id1', 'account-1', 'Opened', '{"owner": "Ann"}', NULL, -1);
SELECT write_message(':id1', 'account-9', 'Opened', '{"owner": "Ann"}');
SELECT write_message(':id1', 'elsewhere-9', 'Opened', '{"owner": "Ann"}', NULL, -1);
SELECT write_message(':id1', 'elsewhere-9', 'Opened', '{"owner": "Ann"}', NULL, 4);
-- each: 'x' | '' | '00000000-0000-4000-8000-00000000000' | '00000000-0000-4000-8000-0000000000010' | ' 00000000-0000-4000-8000-000000000101' | 'g0000000-0000-4000-8000-000000000101'
SELECT write_message($each, 'account-1', 'Tried', '{}');
-- each: 'x' | ''
SELECT write_message($each, 'account-1', 'Tried', '{}', NULL, 77);
-- each: '{00000000-0000-4000-8000-000000000201}' | '00000000000040008000000000000202' | '0000-0000-0000-4000-8000-0000-0000-0203' | 'ABCDEF00-0000-4000-8000-000000000204'
SELECT write_message($each, 'ids-1', 'Written', '{}');
SELECT id FROM get_stream_messages('ids-1');
-- each: 2 | 3 | 5
SELECT write_message('{00000000-0000-4000-8000-000000000201}', 'ids-1', 'Written', '{}', NULL, $each);
SELECT write_message(NULL, 'account-1', 'Tried', '{}');
SELECT write_message(NULL, 'account-1', 'Tried', '{}', NULL, 9);
SELECT write_message(':id', NULL, 'Tried', '{}');
SELECT write_message(':id', NULL, 'Tried', '{}', NULL, -1);
SELECT write_message(':id', NULL, 'Tried', '{}', NULL, 0);
SELECT write_message(':id', 'account-1', NULL, '{}');
SELECT write_message(':id', 'account-1', NULL, '{}', NULL, 9);
SELECT write_message(NULL, NULL, NULL, NULL, NULL, NULL);
SELECT write_message('x', NULL, NULL, NULL, NULL, NULL);
SELECT write_message(NULL, 'account-1', NULL, NULL, NULL, NULL);
SELECT write_message(':id', 'account-1', 'Tried', '{');
SELECT write_message(':id', 'account-1', 'Tried', '{}', 'x');
SELECT write_message(':id', 'account-1', 'Tried');
SELECT write_message(':id', 'account-1');
-- differs: names ~ 'error', '22023', .*(must not be empty|must not begin with|is too long)
-- each: '', 'Written' | 'names-1', '' | 'es_names-1', 'Written' | 'names-1', 'es_written' | repeat('a', 2100) || '-1', 'Written' | 'names-1', repeat('t', 300)
SELECT write_message(':id', $each, '{}');
-- differs: nil id ~ 'error', '22023', 'an id must not be the (nil|max) UUID'
-- each: '00000000-0000-0000-0000-000000000000' | 'ffffffff-ffff-ffff-ffff-ffffffffffff'
SELECT write_message($each, 'ids-2', 'Written', '{}');
BEGIN READ ONLY;
SELECT write_message(':id', 'account-1', 'Tried', '{}');
ROLLBACK;
BEGIN READ ONLY;
SELECT write_message(':id', 'account-1', 'Tried', '{}', NULL, 44);
ROLLBACK;
BEGIN;
SELECT write_message(':id', 'undone-1', 'Tried', '{}');
SELECT stream_version('undone-1');
SELECT position, time = now() AT TIME ZONE 'utc' IS NOT NULL FROM get_last_stream_message('undone-1');
ROLLBACK;
SELECT stream_version('undone-1');
BEGIN;
SELECT write_message(':id', 'clock-1', 'Tried', '{}'), pg_sleep(0.01);
-- differs: time ~ False
SELECT time = now() AT TIME ZONE 'utc' AS same FROM get_last_stream_message('clock-1');
COMMIT;
SELECT write_message(md5('series' || n)::uuid::varchar, 'series-' || n % 3, 'Counted', jsonb_build_object('n', n)) FROM generate_series(1, 12) n;
SELECT write_message(md5('group' || n)::uuid::varchar, 'group-' || n % 7 || '+' || n, 'Grouped', jsonb_build_object('n', n), jsonb_build_object('correlationStreamName', CASE n % 3 WHEN 0 THEN 'teller-' || n WHEN 1 THEN 'teller' ELSE 'clerk-1' END)) FROM generate_series(1, 30) n;

-- Versions
-- differs: names ~ \(None,\)
SELECT stream_version('');
-- each: 'account-1' | 'account-2' | 'account' | NULL | 'series-1' | 'absent-1' | 'one' | 'a-1+2'
SELECT stream_version($each);
SELECT pg_typeof(stream_version('account-1'));

-- Reads of a stream
-- each: 'account-1' | 'account-2' | 'absent-1' | '-' | 'a-1+2' | 'é-1' | 'quote''d-1' | 'a%s-1' | 'account' | '' | NULL
SELECT * FROM get_stream_messages($each);
-- each: 0 | 1 | 2 | 3 | -1 | 9223372036854775807 | -9223372036854775808 | NULL
SELECT * FROM get_stream_messages('account-1', $each);
-- each: 1 | 2 | 0 | -1 | -2 | NULL | 9223372036854775807
SELECT * FROM get_stream_messages('account-1', 1, $each);
SELECT * FROM get_stream_messages(stream_name => 'account-1', batch_size => 1, "position" => 1);
SELECT count(*), min(position), max(position) FROM get_stream_messages('series-1', batch_size => 2);
SELECT (get_stream_messages('account-1')).type;
SELECT * FROM get_stream_messages('account-1', condition => 'type = ''Deposited''');
SELECT * FROM get_stream_messages('account', condition => 'true');
SET message_store.sql_condition = 'on';
-- each: type = 'Deposited' | true | false | messages.type = 'Opened' | (data->>'amount')::int > 10 | data->>'amount' = '10' OR type = 'Opened' | metadata->>'user' = 'Ann' | position >= 1 | global_position > 0 | stream_name LIKE 'account%' | id = '00000000-0000-4000-8000-000000000002' | time < now() AT TIME ZONE 'utc' + interval '1 day' | type LIKE '%s' | data IS NULL
SELECT * FROM get_stream_messages('account-1', condition => $$$each$$);
-- each: nosuch = 1 | type = | 1 | type); DROP TABLE nosuch; --
SELECT * FROM get_stream_messages('account-1', condition => $$$each$$);
SELECT * FROM get_stream_messages('account-1', 0, 1, 'type = ''Deposited''');
SELECT * FROM get_stream_messages('account-1', 2, -1, 'type = ''Deposited''');
SELECT * FROM get_stream_messages('account-1', condition => NULL);
SELECT * FROM get_stream_messages('account-1', condition => '');
SET message_store.sql_condition = 'off';
SELECT * FROM get_stream_messages('account-1', condition => 'true');
RESET message_store.sql_condition;
-- reset

-- Reads of a category
-- differs: names ~ that of -x 0', '\{\}', None, 'now'\)\]
SELECT * FROM get_category_messages('');
-- each: 'account' | 'data' | 'absent' | 'é' | 'a b' | 'series' | 'one' | 'account-1' | '-' | NULL
SELECT * FROM get_category_messages($each);
-- each: :g(account-1, 0) | :g(account-1, 2) | :g(account-2, 1) | 0 | 1 | -5 | NULL | 9223372036854775807 | -9223372036854775808
SELECT * FROM get_category_messages('account', $each);
-- each: 1 | 3 | 0 | -1 | -2 | NULL | 9223372036854775807
SELECT * FROM get_category_messages('account', 1, $each);
SELECT * FROM get_category_messages(category => 'account', batch_size => 2, "position" => :g(account-2, 0));
-- each: 'teller' | 'clerk' | 'other' | 'absent' | '' | 'teller-1' | '-' | NULL
SELECT * FROM get_category_messages('group', correlation => $each);
SELECT * FROM get_category_messages('account', correlation => 'teller');
-- each: 0, 1 | 0, 2 | 1, 2 | 0, 3 | 1, 3 | 2, 3 | 5, 7 | 0, 32767
SELECT * FROM get_category_messages('group', 1, 1000, NULL, $each);
-- each: 0, NULL | NULL, 1 | 0, 0 | 0, -1 | -1, 2 | 2, 2 | 3, 2 | -1, 0 | NULL, 0 | 0, 32768 | 0, 9223372036854775807 | NULL, NULL
SELECT count(*) FROM get_category_messages('group', 1, 1000, NULL, $each);
-- each: 0, 2 | 1, 2
SELECT * FROM get_category_messages('group', :g(group-1+1, 0), 3, 'teller', $each);
SELECT * FROM get_category_messages('one', consumer_group_member => 0, consumer_group_size => 1);
SELECT * FROM get_category_messages('group', condition => 'true');
-- each: 'teller-1', 0, 0 | 'teller', 0, 0
SELECT * FROM get_category_messages('group-1', 1, 1000, $each, 'true');
-- each: 'teller-1', 0, 0 | 'teller', 0, 0 | 'teller', 0, 1
SELECT * FROM get_category_messages('group', 1, 1000, $each, 'true');
SET message_store.sql_condition = 'on';
-- each: type = 'Opened' | position > 0 | data = '{}' | category(stream_name) = 'account' | messages.global_position > 0 AND false | length(data::text) > 5 OR type = 'Closed'
SELECT * FROM get_category_messages('account', condition => $$$each$$);
SELECT * FROM get_category_messages('group', 1, 4, 'teller', 1, 2, '(data->>''n'')::int > 10');
SELECT * FROM get_category_messages('group', condition => 'nosuch');
RESET message_store.sql_condition;
-- reset

-- The last message
-- differs: names ~ 1114\], \[\]\)
SELECT * FROM get_last_stream_message('');
-- each: 'account-1' | 'account-2' | 'absent-1' | NULL | 'account' | 'one'
SELECT * FROM get_last_stream_message($each);
-- each: 'Deposited' | 'Opened' | 'Absent' | '' | NULL
SELECT * FROM get_last_stream_message('account-1', $each);
SELECT * FROM get_last_stream_message(type => 'Opened', stream_name => 'account-1');

-- Reports
-- each: stream_summary | stream_type_summary | type_stream_summary
SELECT stream_name, message_count FROM $each WHERE stream_name ~ '^(account|group|series)';
-- each: category_type_summary | type_category_summary
SELECT category, type, message_count FROM $each WHERE category IN ('account', 'group', 'series');
SELECT type, message_count FROM type_summary WHERE type IN ('Deposited', 'Grouped', 'Counted');
SELECT round(sum(percent)) FROM type_summary;

-- The table
SELECT * FROM messages WHERE stream_name = 'account-1' ORDER BY position;
SELECT * FROM messages WHERE category(stream_name) = 'series' ORDER BY global_position;
SELECT id, global_position, stream_name, position FROM messages WHERE id = ':id2';
INSERT INTO messages (stream_name, position, type, data, metadata, id) VALUES ('inserted-1', 0, 'Inserted', '{"a": 1}', NULL, ':id6');
INSERT INTO messages (stream_name, position, type) VALUES ('inserted-1', 1, 'Inserted') RETURNING stream_name, position, type, data, metadata;
INSERT INTO messages (stream_name, position, type, "time", id) VALUES ('inserted-2', 0, 'Inserted', '2020-02-29 12:34:56.789', ':id7') RETURNING stream_name, position, "time";
SELECT * FROM get_stream_messages('inserted-2');
SELECT position, type, data FROM get_stream_messages('inserted-1');
INSERT INTO messages (stream_name, position, type, id) VALUES ('inserted-1', 0, 'Inserted', ':id');
INSERT INTO messages (stream_name, position, type, id) VALUES ('inserted-1', 2, 'Inserted', ':id6');
INSERT INTO messages (stream_name, position, type, id) VALUES ('inserted-1', NULL, 'Inserted', ':id');
INSERT INTO messages (stream_name, position, type, id) VALUES (NULL, 0, 'Inserted', ':id');
INSERT INTO messages (stream_name, position, type, id) VALUES ('inserted-1', 2, NULL, ':id');
INSERT INTO messages (stream_name, position, type, id) VALUES ('inserted-1', 2, 'Inserted', NULL);
INSERT INTO messages (stream_name, position, type, "time") VALUES ('inserted-1', 2, 'Inserted', NULL);
INSERT INTO messages (stream_name, type) VALUES ('inserted-1', 'Inserted');
INSERT INTO messages (stream_name, position, type) SELECT 'inserted-3', n, 'Inserted' FROM generate_series(0, 9) n;
SELECT stream_version('inserted-3');
SELECT write_message(':id', 'inserted-3', 'Written', '{}', NULL, 9);
-- differs: gaps ~ 'error', '22023', .*at position 5
INSERT INTO messages (stream_name, position, type) VALUES ('inserted-4', 5, 'Inserted');
-- differs: global position ~ 'error', '0A000'
INSERT INTO messages (global_position, stream_name, position, type) VALUES (100000, 'inserted-5', 0, 'Inserted');
-- differs: removal ~ 'error', '55000', 'events cannot be changed or removed'
UPDATE messages SET type = 'Changed' WHERE stream_name = 'inserted-1';
-- differs: removal ~ 'error', '55000', 'events cannot be changed or removed'
DELETE FROM messages WHERE stream_name = 'inserted-2';
BEGIN;
-- differs: removal ~ 'error', '42809'
TRUNCATE message_store.messages;
ROLLBACK;
-- differs: sequence ~ 'error', '42P01'
SELECT last_value > 0 FROM message_store.messages_global_position_seq;

-- Settings and notices
-- each: debug_write | debug
SET message_store.$each = 'on'; SELECT write_message(':id', 'debug-1', 'Debugged', '{"a": 1}', '{"b": 2}', NULL);
-- reset
SET message_store.debug_write = 'on';
SELECT write_message(':id8', 'debug-2', 'Debugged', NULL);
SELECT write_message(':id', 'debug-2', 'Debugged', '{}', NULL, 7);
SELECT write_message(':id8', 'debug-2', 'Debugged', '{}', NULL, 0);
SELECT acquire_lock('debug-2');
SELECT acquire_lock(NULL);
SELECT * FROM get_stream_messages('debug-2');
-- reset
SET message_store.debug_get = 'on';
SELECT * FROM get_stream_messages('debug-2');
SELECT * FROM get_stream_messages('debug-2', NULL, NULL);
SELECT * FROM get_category_messages('debug', NULL, 10, 'teller', 0, 1);
SELECT * FROM get_last_stream_message('debug-2', 'Debugged');
SELECT write_message(':id', 'debug-2', 'Debugged', '{}');
-- reset
SET message_store.debug = 'off';
SELECT write_message(':id', 'debug-2', 'Debugged', '{}');
-- reset

-- The role message_store
SET ROLE message_store;
SELECT write_message(':id', 'role-1', 'Written', '{}');
SELECT * FROM get_stream_messages('role-1');
SELECT * FROM get_category_messages('role', correlation => 'a');
SELECT * FROM get_last_stream_message('role-1');
SELECT stream_version('role-1');
SELECT count(*) FROM messages WHERE stream_name = 'role-1';
INSERT INTO messages (stream_name, position, type) VALUES ('role-1', 1, 'Inserted');
SELECT message_count FROM stream_summary WHERE stream_name = 'role-1';
SELECT write_message(':id', 'role-1', 'Tried', '{}', NULL, 9);
CREATE TABLE message_store.own (a integer);
-- differs: removal ~ 'error', '42501'
DELETE FROM messages;
RESET ROLE;
CREATE ROLE visitor_$db;
SET ROLE visitor_$db;
SELECT write_message(':id', 'role-1', 'Tried', '{}');
SELECT * FROM message_store.messages;
RESET ROLE;
DROP ROLE visitor_$db;
