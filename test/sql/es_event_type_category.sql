-- Types and upcasters of one category: two teams, one name of a type.
CREATE EXTENSION eventstore;
CREATE FUNCTION up_all(data jsonb) RETURNS jsonb IMMUTABLE LANGUAGE sql AS $$ SELECT data || '{"up": "all"}' $$;
CREATE FUNCTION up_invoice(data jsonb) RETURNS jsonb IMMUTABLE LANGUAGE sql AS $$ SELECT data || '{"up": "invoice"}' $$;
CREATE FUNCTION up_invoice_2(data jsonb) RETURNS jsonb IMMUTABLE LANGUAGE sql AS $$ SELECT data || '{"up": "invoice 2"}' $$;

-- Each category's definition is whole: it does not mix with that of all categories.
SELECT es_define_event_type('paid', '{order_no}', '{order_no}', '{"amount": "number"}');
SELECT es_define_event_type('paid', '{invoice_no}', '{no}', '{"amount": "string"}', description => 'a customer paid', category => 'invoice');
SELECT es_append('order-1', 'any', 'paid', '{"order_no": 1, "amount": 5}');
SELECT es_append('invoice-1', 'any', 'paid', '{"invoice_no": 1, "no": 1, "amount": "5"}');
SELECT es_append('order-1', 'any', 'paid', '{"invoice_no": 1, "no": 1, "amount": "5"}');
SELECT es_append('invoice-1', 'any', 'paid', '{"order_no": 1, "amount": 5}');
SELECT es_append('invoice', 'any', 'paid', '{}');
SELECT es_append('invoices-1', 'any', 'paid', '{"invoice_no": 1}');
SELECT es_append('-invoice', 'any', 'paid', '{"order_no": 2}');
-- In a batch, an import, a message and a decision as well.
SELECT es_append_batch('invoice-2', 'any', '[{"type": "paid", "data": {"invoice_no": 2, "no": 2}}, {"type": "paid", "data": {"order_no": 2}}]');
INSERT INTO es_import (stream, type, data) VALUES ('order-2', 'paid', '{"order_no": 3}'), ('invoice-2', 'paid', '{"invoice_no": 3, "no": 3}');
INSERT INTO es_import (stream, type, data) VALUES ('order-2', 'paid', '{"order_no": 4}'), ('invoice-2', 'paid', '{"order_no": 4}');
CREATE FUNCTION decide(state jsonb, command jsonb) RETURNS jsonb LANGUAGE sql AS $$ SELECT jsonb_build_array(jsonb_build_object('type', 'paid', 'data', command)) $$;
SELECT version FROM es_execute('invoice-3', 'decide', '{"invoice_no": 9, "no": 9}', 'es_merge');
SELECT version FROM es_execute('invoice-3', 'decide', '{"order_no": 9}', 'es_merge');
CREATE FUNCTION receive(payload text, metadata jsonb) RETURNS es_ack_event LANGUAGE sql
    AS $$ SELECT jsonb_populate_record(NULL::es_ack_event, '{"entity_id": "e", "event_type": "paid", "stream": "invoice-4"}') $$;
SELECT es_receive('t', 'g', 'x', 'receive');

-- The same composite key is another event in another category.
SELECT es_define_event_type('kept', composite_key => '{no}', category => 'a');
SELECT es_define_event_type('kept', composite_key => '{no}', category => 'b');
SELECT version FROM es_append('a-1', 'any', 'kept', '{"no": 7}');
SELECT version FROM es_append('b-1', 'any', 'kept', '{"no": 7}');
SELECT version FROM es_append('a-1', 'none', 'kept', '{"no": 7}');
SELECT es_append('a-2', 'any', 'kept', '{"no": 7}');
SELECT stream, id = es_digest(es_category(stream) || '-kept', data, '{no}') AS own, id = es_digest('kept', data, '{no}') AS shared
  FROM es_events WHERE type = 'kept';
-- Where the type is not defined for the category, nothing is checked; with strict types it is an error.
SELECT version FROM es_append('c-1', 'any', 'kept', '[]');
SET eventstore.strict_types = on;
SELECT version FROM es_append('c-1', 'any', 'kept', '[]');
SELECT version FROM es_append('c-1', 'any', 'nothing', '[]');
SELECT es_append_batch('a-1', 'any', '[{"type": "kept", "data": {"no": 8}}, {"type": "paid", "data": {"order_no": 8}}]') IS NOT NULL AS appended;
SELECT es_create_subscription('s', types => '{kept,paid}');
SELECT es_create_subscription('s2', types => '{kept,nothing}');
RESET eventstore.strict_types;

--
-- Upcasters
--
-- Those of all categories are not called where the type is defined for the category.
SELECT es_define_upcaster('paid', 1, 'up_all');
CREATE VIEW paid AS SELECT stream, version, data->>'up' AS up, metadata FROM es_read() WHERE type = 'paid' AND version = 1 AND stream ~ '1$' ORDER BY stream;
SELECT * FROM paid;
-- One for a category needs the type of the category.
SELECT es_define_upcaster('paid', 1, 'up_invoice', 'order');
SELECT es_define_upcaster('nothing', 1, 'up_invoice', 'invoice');
SELECT es_define_upcaster('paid', 1, 'up_invoice', 'invoice');
SELECT es_define_upcaster('paid', 2, 'up_invoice_2', category => 'invoice');
SELECT es_define_event_type('paid', '{invoice_no}', '{no}', schema_version => 3, category => 'invoice');
SELECT * FROM paid;
SELECT type, category, from_version, upcaster FROM es_upcasters ORDER BY 1, 2 NULLS FIRST, 3;
-- In every way of reading.
SELECT e.data->>'up' FROM es_event((SELECT id FROM es_events WHERE stream = 'invoice-1')) AS e;
SELECT (es_last_event('invoice-1')).metadata, (es_last_event('order-1')).metadata;
SELECT stream, (es_upcast(e)).data->>'up' AS up FROM es_events e WHERE stream IN ('invoice-1', 'order-1') ORDER BY 1;
SELECT es_upcast_data(1, es_uuid7(), s, 'paid', '{}', NULL), es_upcast_metadata(1, es_uuid7(), s, 'paid', '{}', NULL) FROM unnest('{invoice-1,order-1,invoice,NULL}'::text[]) AS s;
SELECT state FROM es_state('invoice-1', 'es_merge');
SELECT state FROM es_state('order-1', 'es_merge');
SELECT stream, data->>'up' AS up FROM es_poll('s', 'me', 2) ORDER BY 1;
CREATE TABLE seen (stream text, up text);
SELECT es_create_projection('p', query => 'INSERT INTO seen SELECT stream, data->>''up'' FROM new_events', types => '{paid}', tables => '{seen}');
SELECT es_run_projections() > 0 AS ran;
SELECT up, count(*) FROM seen GROUP BY 1 ORDER BY 1;
-- A new event of an earlier version is upcast, and checked, by those of its category.
SELECT es_define_event_type('paid', '{up}', schema_version => 3, attributes => '{"up": "s"}', category => 'invoice');
SELECT version FROM es_append('invoice-5', 'any', 'paid', '{}', '{"schema_version": 1}');
SELECT version FROM es_append('invoice-5', 'any', 'paid', '{}');
SELECT version FROM es_append('invoice-5', 'any', 'paid', '{}', '{"schema_version": 4}');
SELECT stream, data, metadata FROM es_events WHERE stream = 'invoice-5';
-- A context names the event, whose stream says the category.
CREATE FUNCTION up_fails(data jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$ BEGIN RAISE 'it fails'; END $$;
SELECT es_define_upcaster('paid', 2, 'up_fails', 'invoice');
SELECT data FROM es_load('invoice-1');
SELECT data FROM es_load('order-1');
SELECT es_define_upcaster('paid', 2, NULL, 'invoice');
SELECT es_define_upcaster('paid', 2, NULL, 'invoice');
SELECT es_define_upcaster('paid', 2, NULL);
SELECT * FROM paid;

-- States are folded anew when other upcasters count for the category.
SET eventstore.snapshot_every = 1;
SELECT version FROM es_append('order-9', 'any', 'paid', '{"order_no": 11, "n": 1}');
SELECT state FROM es_state('order-9', 'es_merge');
SELECT es_define_event_type('paid', category => 'order');
SELECT state FROM es_state('order-9', 'es_merge');
SELECT es_drop_event_type('paid', 'order');
SELECT state FROM es_state('order-9', 'es_merge');
RESET eventstore.snapshot_every;

--
-- What is described and dropped
--
SELECT type, category, required, schema_version, upcasters FROM es_describe_event_type('paid');
SELECT type, category, required, schema_version, upcasters FROM es_describe_event_type('paid', 'invoice');
SELECT type, category, required, schema_version, upcasters FROM es_describe_event_type('paid', 'order');
SELECT * FROM es_describe_event_type('kept', 'c');
SELECT * FROM es_describe_event_type('kept');
SELECT es_drop_event_type('paid', 'order');
SELECT es_drop_event_type('paid');
SELECT type, category FROM es_event_types ORDER BY 1, 2;
SELECT type, category, from_version FROM es_upcasters;
SELECT * FROM paid;
SELECT es_drop_event_type('paid', 'invoice');
SELECT count(*) FROM es_upcasters;
-- Each once.
SELECT es_define_event_type('once'), es_define_event_type('once'), es_define_event_type('once', category => ''), es_define_event_type('once', category => '');
SELECT type, category FROM es_event_types WHERE type = 'once' ORDER BY 2 NULLS FIRST;
INSERT INTO es_event_types (type, required, schema_version) VALUES ('once', '{}', 1);

-- They can be published.
SET client_min_messages = error;
CREATE PUBLICATION everything FOR ALL TABLES;
SELECT es_define_event_type('once'), es_define_upcaster('once', 1, 'up_all');
SELECT es_define_event_type('once'), es_define_upcaster('once', 1, 'up_all');
SELECT es_drop_event_type('once'), es_drop_event_type('once', '');
DROP PUBLICATION everything;
RESET client_min_messages;

-- A copy of an event that was upcast is of the version that its metadata says, and not upcast again.
CREATE FUNCTION up_counts(data jsonb) RETURNS jsonb LANGUAGE sql AS $$ SELECT data || jsonb_build_object('ups', coalesce((data->>'ups')::int, 0) + 1) $$;
SELECT version FROM es_append('old-1', 'none', 'counted');
SELECT es_define_upcaster('counted', 1, 'up_counts'), es_define_upcaster('counted', 2, 'up_counts');
SELECT (es_append('copy-1', 'any', type, data, metadata)).version FROM es_load('old-1');
INSERT INTO es_import (stream, type, data, metadata) SELECT 'copy-2', type, data, metadata FROM es_event((SELECT id FROM es_events WHERE stream = 'old-1'));
SELECT (es_append_batch('copy-3', 'any', jsonb_agg(jsonb_build_object('type', type, 'data', data, 'metadata', metadata)))).version FROM es_load('old-1');
SELECT e.stream, e.data AS stored, e.metadata, l.data AS read FROM es_events e, es_load(e.stream) l WHERE e.type = 'counted' ORDER BY 1;
SELECT es_drop_event_type('counted');
DROP FUNCTION up_counts;

-- Refused.
SELECT es_define_event_type('paid', category => 'invoice-1');
SELECT es_define_upcaster('paid', 1, 'up_all', 'invoice-1');
SELECT es_drop_event_type('paid', 'a-b');
SELECT es_describe_event_type('paid', 'a-b');
SELECT es_define_event_type('paid', category => repeat('x', 3000));

-- An index is for the events of all categories, and of a kind that serves all of them.
SELECT es_define_event_type('same', attributes => '{"who": "string", "n": "number"}', category => 'a'),
       es_define_event_type('same', attributes => '{"who": "string", "n": "string"}', category => 'b');
SELECT pg_get_indexdef(es_index_attribute('same', 'who')) ~ 'left' AS text, pg_get_indexdef(es_index_attribute('same', 'n')) ~ 'es_attribute' AS values;

-- A session that knows the definitions follows every change, also one that is rolled back.
BEGIN;
SELECT es_define_event_type('follows', '{x}', category => 'a');
SELECT es_append('a-9', 'any', 'follows');
ROLLBACK;
SELECT (es_append('a-9', 'any', 'follows')).version;
DROP EXTENSION eventstore CASCADE;
DROP TABLE seen;
DROP FUNCTION up_all, up_invoice, up_invoice_2, up_fails, decide;
