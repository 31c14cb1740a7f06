-- Sample data of make gateway-demo: accounts, a projection that works, one whose handler fails on some events, a
-- subscription with a consumer that is late, an inbox, and types with definitions.
\set ON_ERROR_STOP on
CREATE EXTENSION eventstore;
CREATE ROLE demo_reader;
CREATE ROLE demo_operator;
CREATE ROLE gateway LOGIN NOINHERIT;
GRANT demo_reader, demo_operator TO gateway;
SELECT es_grant('demo_reader', 'reader');
SELECT es_grant('demo_operator', kind) FROM unnest('{reader,writer,operator,retention}'::text[]) AS kind;
CREATE SCHEMA shop AUTHORIZATION demo_operator;
GRANT USAGE ON SCHEMA shop TO PUBLIC;
ALTER ROLE gateway SET gateway.inbox_handlers = '{"payments/shop": "shop.on_payment"}';
-- Names of the extension are found by whoever creates functions here.
SELECT format('ALTER ROLE demo_operator SET search_path = shop, %I', current_schema()) \gexec

SET ROLE demo_operator;
SET search_path = shop, public;
CREATE TABLE balance (account text PRIMARY KEY, amount bigint NOT NULL);
SELECT es_create_projection('balance', category => 'account', types => '{deposited,withdrawn}', tables => '{balance}',
                            query => $$
    INSERT INTO balance
    SELECT stream, sum(CASE type WHEN 'deposited' THEN 1 ELSE -1 END * (data->>'amount')::bigint)
      FROM new_events GROUP BY stream
        ON CONFLICT (account) DO UPDATE SET amount = balance.amount + excluded.amount $$);

-- A handler with a fault: it does not know foreign currencies.
CREATE TABLE mail (position bigint PRIMARY KEY, recipient text NOT NULL);
CREATE FUNCTION send_mail(event es_recorded_event) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF event.data->>'currency' <> 'EUR' THEN
        RAISE EXCEPTION 'there is no rate for %', event.data->>'currency' USING ERRCODE = 'data_exception';
    END IF;
    INSERT INTO mail VALUES (event.position, event.data->>'customer');
END $$;
SELECT es_create_projection('mail', 'shop.send_mail', category => 'order', types => '{order_placed}',
                            tables => '{mail}', on_failure => 'park', max_attempts => 1);

CREATE FUNCTION account_state(state jsonb, event es_recorded_event) RETURNS jsonb LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE event.type
           WHEN 'opened' THEN state || event.data || '{"balance": 0}'
           WHEN 'deposited' THEN jsonb_set(state, '{balance}',
                                           to_jsonb((state->>'balance')::bigint + (event.data->>'amount')::bigint))
           WHEN 'withdrawn' THEN jsonb_set(state, '{balance}',
                                           to_jsonb((state->>'balance')::bigint - (event.data->>'amount')::bigint))
           ELSE state END $$;
CREATE FUNCTION on_payment(payload text, metadata jsonb) RETURNS es_ack_event LANGUAGE sql AS $$
    SELECT p->>'id', (p->>'at')::timestamptz, 'paid', 'v1', 'payment-' || (p->>'id'), NULL, NULL::text[]
      FROM (SELECT payload::jsonb AS p) AS message $$;
SELECT es_create_subscription('mails', category => 'order', partitions => 4);

SELECT es_append('account-' || i, 'none', 'opened',
                 jsonb_build_object('owner', (ARRAY['Ann', 'Ben', 'Chloé', 'Dana', 'Émile'])[i % 5 + 1]))
  FROM generate_series(1, 40) AS i;
SELECT count(es_append('account-' || (i % 40 + 1), 'any', CASE WHEN i % 4 = 3 THEN 'withdrawn' ELSE 'deposited' END,
                       jsonb_build_object('amount', i * 7 % 100 + 1), jsonb_build_object('by', 'teller ' || i % 6),
                       tags => ARRAY['teller:' || i % 6]))
  FROM generate_series(1, 3000) AS i;
SELECT count(es_append('order-' || i, 'none', 'order_placed',
                       jsonb_build_object('customer', 'customer ' || i % 17, 'total', i * 13 % 400,
                                          'currency', CASE WHEN i % 60 = 59 THEN 'XAU' ELSE 'EUR' END)))
  FROM generate_series(1, 300) AS i;
SELECT es_append('<script>alert("a name")</script>-1', 'none', 'named', '{"text": "<b>not bold</b>"}');
SELECT es_receive('payments', 'shop', '{"id": "7", "at": "2026-01-01"}', 'shop.on_payment');
SELECT count(*) FROM es_poll('mails', 'demo', 20);
