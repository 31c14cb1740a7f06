-- What the tests of the console, and its pictures, look at. Called by psql as the superuser, in a database in which the
-- roles have their grants.
CREATE SCHEMA account;
CREATE FUNCTION account.apply_opened(state jsonb, data jsonb) RETURNS jsonb LANGUAGE sql
    RETURN jsonb_build_object('owner', data->'owner', 'balance', 0);
CREATE FUNCTION account.apply_deposited(state jsonb, data jsonb) RETURNS jsonb LANGUAGE sql
    RETURN state || jsonb_build_object('balance', (state->>'balance')::numeric + (data->>'amount')::numeric,
                                       'last_deposit', data->'amount');
CREATE FUNCTION account.apply_withdrawn(state jsonb, data jsonb) RETURNS jsonb LANGUAGE sql
    RETURN (state || jsonb_build_object('balance', (state->>'balance')::numeric - (data->>'amount')::numeric))
           - 'last_deposit';
SELECT es_reducer('account');
GRANT USAGE ON SCHEMA account TO reader, operator;

SELECT es_define_event_type('deposited', required => '{amount}', attributes => '{"amount": "any"}', schema_version => 2,
                            description => 'Somebody paid money into an account.');
SELECT es_define_event_type('placed', required => '{total}', attributes => '{"total": "number", "items": "array"}',
                            description => 'A customer placed an order.');
SELECT es_define_event_type('placed', required => '{total}', category => 'quote', description => 'An offer was accepted.');
CREATE FUNCTION account.deposited_1(data jsonb) RETURNS jsonb LANGUAGE sql IMMUTABLE
    RETURN jsonb_build_object('amount', data->'sum');
SELECT es_define_upcaster('deposited', 1, 'account.deposited_1(jsonb)');

SELECT count(es_append_batch('account-' || i, 'none', jsonb_build_array(
           jsonb_build_object('type', 'opened', 'data', jsonb_build_object('owner', (ARRAY['Ann', 'Ben', 'Cleo'])[1 + i % 3])),
           jsonb_build_object('type', 'deposited', 'data', jsonb_build_object('amount', 50 + i)),
           jsonb_build_object('type', 'withdrawn', 'data', jsonb_build_object('amount', 5 + i % 40)),
           jsonb_build_object('type', 'deposited', 'data', jsonb_build_object('amount', i % 20)))))
  FROM generate_series(1, 60) i;
SELECT count(es_append('order-' || i, 'none', 'placed', jsonb_build_object('total', 9 + i, 'items', jsonb_build_array(
           jsonb_build_object('sku', 'tea-' || i % 7, 'count', 1 + i % 3))),
           metadata => jsonb_build_object('user', 'web'), tags => ARRAY['customer:' || (ARRAY['ann', 'ben', 'cleo'])[1 + i % 3],
                                                                         'product:tea-' || i % 7]))
  FROM generate_series(1, 60) i;
SELECT count(es_append('order-' || i, 1, 'paid', jsonb_build_object('total', 9 + i), tags => ARRAY['customer:ann']))
  FROM generate_series(1, 40) i;
SELECT version FROM es_append('exact-1', 'none', 'measured',
                              '{"big": 9007199254740993, "price": 1.10, "tiny": 0.00000000000000000001}');
SELECT version FROM es_append('<script>alert(1)</script>', 'none', '<img src=x onerror=alert(2)>',
                              '{"<b>key</b>": "<script>alert(3)</script>", "turned": "\u202e drawkcab"}',
                              tags => '{"<i>tag</i>"}');
SELECT version FROM es_append('names/with ?&#%25 ü', 'none', 'placed', '{"total": 1}');

-- A projection that parks what it cannot handle, one that is a query, and one that is slow.
CREATE TABLE balance (account text PRIMARY KEY, amount numeric);
CREATE FUNCTION add_to_balance(event es_recorded_event) RETURNS void LANGUAGE sql AS $$
    INSERT INTO balance VALUES (event.stream, (event.data->>'amount')::int)
        ON CONFLICT (account) DO UPDATE SET amount = balance.amount + excluded.amount $$;
SELECT es_create_projection('balance', handler => 'add_to_balance', tables => '{balance}', category => 'account',
                            types => '{deposited}', on_failure => 'park', max_attempts => 1);
CREATE TABLE orders (stream text PRIMARY KEY, total numeric);
SELECT es_create_projection('orders', category => 'order', types => '{placed}', tables => '{orders}', query => $$
    INSERT INTO orders SELECT stream, (data->>'total')::numeric FROM new_events ON CONFLICT (stream) DO NOTHING $$);
CREATE TABLE slow (position bigint);
CREATE FUNCTION be_slow(event es_recorded_event) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_sleep(CASE WHEN es_replaying() THEN 0.05 ELSE 0 END);
    INSERT INTO slow VALUES (event.position);
END $$;
SELECT es_create_projection('slow', handler => 'be_slow', tables => '{slow}', category => 'order', types => '{placed,paid}',
                            batch_size => 10);

SELECT es_create_subscription('mails', category => 'order', partitions => 4);
SELECT count(*) FROM es_poll('mails', 'mailer-1', max_count => 5);
SELECT count(*) FROM es_poll('mails', 'mailer-2', max_count => 3);

CREATE FUNCTION on_payment(payload text, metadata jsonb) RETURNS es_ack_event LANGUAGE sql AS $$
    SELECT p->>'id', (p->>'at')::timestamptz, 'paid', 'v1', 'payment-' || (p->>'id'), NULL, NULL::text[]
      FROM (SELECT payload::jsonb AS p) AS message $$;
SELECT es_receive('payments', 'shop', format('{"id": "%s", "at": "2026-01-%s", "amount": %s}', i, 10 + i, i * 7), 'on_payment',
                  '{"source": "bank"}', message_id => 'bank-' || i)
  FROM generate_series(1, 8) i;
SELECT es_receive('payments', 'shop', 'this is not JSON', 'on_payment', '{"source": "bank"}', max_retries => 0);

SELECT version FROM es_append_batch('cart-1', 'none', '[{"type": "created"}, {"type": "filled"}]');
SELECT version FROM es_delete_stream('cart-1', 'any', metadata => '{"reason": "expired"}');
SELECT version FROM es_append_batch('profile-1', 'none',
    '[{"type": "named", "data": {"name": "Ann"}}, {"type": "moved", "data": {"city": "Bonn"}}]');
SELECT version FROM es_compact_stream('profile-1', 'es_merge', metadata => '{"reason": "history of a profile"}');
SELECT es_set_retention('sensor', max_age => '90 days', max_count => 1000);
CALL es_work();
