-- Retries: what is the same append, and what is not, in every way to append.
CREATE EXTENSION eventstore;

-- An event by itself: type and data are the same; times and metadata may be others.
SELECT * FROM es_append('one-1', 'none', 'paid', '{"amount": 5, "to": "ann"}', '{"try": 1}', '00000000-0000-7000-8000-000000000001');
SELECT * FROM es_append('one-1', 'none', 'paid', '{"to": "ann", "amount": 5.0}', '{"try": 2}', '00000000-0000-7000-8000-000000000001', now());
SELECT * FROM es_append('one-1', 99, 'paid', '{"amount": 5, "to": "ann"}', NULL, '00000000-0000-7000-8000-000000000001');
SELECT * FROM es_append('one-1', 1, 'OTHER', '{"amount": 5, "to": "ann"}', NULL, '00000000-0000-7000-8000-000000000001');
SELECT * FROM es_append('one-1', 1, 'paid', '{"amount": 6, "to": "ann", "by": null}', NULL, '00000000-0000-7000-8000-000000000001');
SELECT * FROM es_append('one-1', 1, 'paid', '[]', NULL, '00000000-0000-7000-8000-000000000001');
SELECT * FROM es_append('one-1', 1, 'paid', '{"a": 1, "b": 2, "c": 3, "d": 4, "e": 5}', NULL, '00000000-0000-7000-8000-000000000001');
SELECT * FROM es_append('one-2', 'any', 'paid', '{"amount": 5, "to": "ann"}', NULL, '00000000-0000-7000-8000-000000000001');

-- A batch in which only some events have ids takes no stranger's event for its own.
SELECT * FROM es_append('some-1', 'any', 'a', '{}', id => '00000000-0000-7000-8000-000000000011');
SELECT * FROM es_append('some-1', 'any', 'other');
SELECT * FROM es_append_batch('some-1', 'any', '[{"type": "a", "id": "00000000-0000-7000-8000-000000000011"}, {"type": "mine"}]');
SELECT * FROM es_append_batch('some-1', 'any', '[{"type": "a", "id": "00000000-0000-7000-8000-000000000011"}, {"type": "other", "data": {"n": 1}}]');
SELECT * FROM es_append_batch('some-1', 'any', ARRAY['a', 'mine'], ARRAY['{}', '{}']::jsonb[], NULL, ARRAY['00000000-0000-7000-8000-000000000011', NULL]::uuid[]);
-- Ids at any place of a batch.
SELECT * FROM es_append_batch('some-2', 'none', '[{"type": "a", "data": 1}, {"type": "b", "data": 2, "id": "00000000-0000-7000-8000-000000000021"}, {"type": "c", "data": 3}]');
SELECT es_append('some-2', 3, 'd', '4');
SELECT * FROM es_append_batch('some-2', 'none', '[{"type": "a", "data": 1}, {"type": "b", "data": 2, "id": "00000000-0000-7000-8000-000000000021"}, {"type": "c", "data": 3}]');
SELECT * FROM es_append_batch('some-2', 'none', '[{"type": "A", "data": 1}, {"type": "b", "data": 2, "id": "00000000-0000-7000-8000-000000000021"}, {"type": "c", "data": 3}]');
SELECT * FROM es_append_batch('some-2', 'none', '[{"type": "a", "data": 1}, {"type": "b", "data": 7, "id": "00000000-0000-7000-8000-000000000021"}, {"type": "c", "data": 3}]');
SELECT * FROM es_append_batch('some-2', 'none', '[{"type": "a", "data": 1}, {"type": "b", "data": 2, "id": "00000000-0000-7000-8000-000000000021"}, {"type": "c", "data": null}]');
SELECT * FROM es_append_batch('some-2', 'none', '[{"type": "a", "data": 1}, {"type": "b", "data": 2, "id": "00000000-0000-7000-8000-000000000021"}, {"type": "c", "data": 3}, {"type": "d", "data": 5}]');
SELECT * FROM es_append_batch('some-2', 'none', '[{"type": "b", "data": 2, "id": "00000000-0000-7000-8000-000000000021"}, {"type": "c", "data": 3}, {"type": "d", "data": 4}, {"type": "e"}]');
SELECT es_stream_version('some-1'), es_stream_version('some-2');
-- Large data is compared as well.
SELECT es_append('large-1', 'none', 'a', to_jsonb(repeat('x', 1000000)), id => '00000000-0000-7000-8000-000000000031');
SELECT es_append('large-1', 'none', 'a', to_jsonb(repeat('x', 1000000)), id => '00000000-0000-7000-8000-000000000031');
SELECT es_append('large-1', 'none', 'a', to_jsonb(repeat('x', 999999) || 'y'), id => '00000000-0000-7000-8000-000000000031');

-- Where a composite key makes the id, the key decides, and the first event stands.
SELECT es_define_event_type('moved', composite_key => '{person, date}');
SELECT * FROM es_append('key-1', 'none', 'moved', '{"person": 1, "date": "d", "city": "Bern"}');
SELECT * FROM es_append('key-1', 'none', 'moved', '{"person": 1, "date": "d", "city": "Rome"}');
SELECT * FROM es_append_batch('key-1', 'none', '[{"type": "moved", "data": {"person": 1, "date": "d"}}]');
INSERT INTO es_import (stream, type, data) VALUES ('key-1', 'moved', '{"person": 1, "date": "d"}'), ('key-1', 'moved', '{"person": 2, "date": "d"}'), ('key-1', 'moved', '{"person": 2, "date": "d", "city": ""}');
SELECT es_append('key-2', 'any', 'moved', '{"person": 1, "date": "d"}');
-- An id that is given is compared as any other; that of a key beside events without ids, too.
SELECT * FROM es_append('key-1', 'none', 'moved', '{"person": 1, "date": "d", "city": "Rome"}', id => es_digest('moved', '{"person": 1, "date": "d"}', '{person, date}'));
SELECT * FROM es_append_batch('key-1', 'any', '[{"type": "moved", "data": {"person": 1, "date": "d"}}, {"type": "mine"}]');
SELECT version, type, data FROM es_load('key-1');

-- An event that was rewritten is known by its id and its place.
SELECT * FROM es_append_batch('person-1', 'none', '[{"type": "named", "data": {"name": "Ann"}, "id": "00000000-0000-7000-8000-000000000041"}, {"type": "named", "data": {"name": "Ben"}}]');
SELECT es_rewrite(id, '{"name": null}') FROM es_load('person-1');
SELECT * FROM es_append_batch('person-1', 'none', '[{"type": "named", "data": {"name": "Ann"}, "id": "00000000-0000-7000-8000-000000000041"}, {"type": "named", "data": {"name": "Ben"}}]');
INSERT INTO es_import (stream, type, data, id) VALUES ('person-1', 'named', '{"name": "Ann"}', '00000000-0000-7000-8000-000000000041');
SELECT * FROM es_append('person-2', 'any', 'named', '{"name": "Ann"}', id => '00000000-0000-7000-8000-000000000041');
SELECT position, rewritten_at > now() - interval '1 hour' AS at, rewritten_by = current_user AS by FROM es_rewrites ORDER BY position;
SELECT es_rewrite(id, '{"name": ""}') FROM es_load('person-1');
SELECT count(*) FROM es_rewrites;
-- A rewrite that fails, or is rolled back, leaves no mark.
BEGIN;
SELECT es_rewrite('00000000-0000-7000-8000-000000000001', '{}');
ROLLBACK;
SELECT es_rewrite('00000000-0000-7000-8000-000000000001', '{}', '[]');
SELECT es_append('one-1', 1, 'paid', '{}', NULL, '00000000-0000-7000-8000-000000000001');
DELETE FROM es_rewrites;
SELECT es_append('person-1', 'any', 'named', '{"name": "Ann"}', id => '00000000-0000-7000-8000-000000000041');

-- A role that may not read the log learns that an event differs, and not how.
CREATE ROLE regress_retry_writer;
SELECT es_grant('regress_retry_writer', 'writer');
SET ROLE regress_retry_writer;
SELECT es_append('one-1', 1, 'OTHER', id => '00000000-0000-7000-8000-000000000001');
SELECT es_append('one-1', 1, 'paid', '{"amount": 6}', id => '00000000-0000-7000-8000-000000000001');
SELECT version FROM es_append('one-1', 1, 'paid', '{"amount": 5, "to": "ann"}', id => '00000000-0000-7000-8000-000000000001');
SELECT * FROM es_append_batch('some-1', 'any', '[{"type": "a", "id": "00000000-0000-7000-8000-000000000011"}, {"type": "mine"}]');
RESET ROLE;
SELECT es_revoke('regress_retry_writer', 'writer');
DROP ROLE regress_retry_writer;

-- es_execute: the command's id decides; ids that the decider gives are compared.
CREATE FUNCTION decide_pay(state jsonb, command jsonb) RETURNS jsonb LANGUAGE sql
RETURN command->'events';
SELECT * FROM es_execute('exec-1', 'decide_pay', '{"events": [{"type": "paid", "data": {"n": 1}, "id": "00000000-0000-7000-8000-000000000051"}, {"type": "thanked"}]}', 'es_merge');
SELECT es_append('exec-1', 2, 'other');
SELECT * FROM es_execute('exec-1', 'decide_pay', '{"events": [{"type": "paid", "data": {"n": 1}, "id": "00000000-0000-7000-8000-000000000051"}, {"type": "thanked"}]}', 'es_merge');
SELECT * FROM es_execute('exec-1', 'decide_pay', '{"events": [{"type": "paid", "data": {"n": 2}, "id": "00000000-0000-7000-8000-000000000051"}, {"type": "thanked"}]}', 'es_merge');
SELECT * FROM es_execute('exec-1', 'decide_pay', '{"events": [{"type": "paid", "data": {"n": 1}, "id": "00000000-0000-7000-8000-000000000051"}, {"type": "cursed"}]}', 'es_merge');
SELECT * FROM es_execute('exec-1', 'decide_pay', '{"events": [{"type": "paid"}]}', 'es_merge', '{"command_id": "00000000-0000-0000-0000-000000000000"}');
SELECT * FROM es_execute('exec-2', 'decide_pay', '{"events": [{"type": "paid"}, {"type": "thanked"}]}', 'es_merge', '{"command_id": "00000000-0000-7000-8000-0000000000c1"}');
SELECT es_append('exec-2', 2, 'thanked', '{"n": 1}');
SELECT * FROM es_execute('exec-2', 'decide_pay', '{"events": [{"type": "paid"}, {"type": "thanked"}]}', 'es_merge', '{"command_id": "00000000-0000-7000-8000-0000000000c1"}');
SELECT * FROM es_execute('exec-2', 'decide_pay', '{"events": []}', 'es_merge', 'null');
SELECT es_stream_version('exec-1'), es_stream_version('exec-2');

-- es_receive: a message is known by itself; its event by the composite key of its type.
CREATE FUNCTION on_move(payload text, metadata jsonb) RETURNS es_ack_event LANGUAGE sql
RETURN ROW(NULL, NULL, 'moved', NULL, 'inbox-1', NULL, NULL)::es_ack_event;
SELECT es_receive('moves', 'g', '{"person": 9, "date": "d", "try": 1}', 'on_move');
SELECT es_receive('moves', 'g', '{"person": 9, "date": "d", "try": 1}', 'on_move');
SELECT es_receive('moves', 'g', '{"person": 9, "date": "d", "try": 2}', 'on_move');
SELECT position = (SELECT max(position) FROM es_events) AS first_result, payload FROM es_inbox ORDER BY id;
SELECT version, data FROM es_load('inbox-1');

DROP FUNCTION decide_pay, on_move;
DROP EXTENSION eventstore;
