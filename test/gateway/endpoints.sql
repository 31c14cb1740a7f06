-- What test_endpoints.py works on: an aggregate, a projection that handles everything, one that fails, and a handler of
-- the inbox.
CREATE SCHEMA account;
CREATE FUNCTION account.apply_opened(state jsonb, data jsonb) RETURNS jsonb LANGUAGE sql RETURN '{"balance": 0}'::jsonb;
CREATE FUNCTION account.apply_deposited(state jsonb, data jsonb) RETURNS jsonb LANGUAGE sql
    RETURN jsonb_build_object('balance', (state->>'balance')::int + (data->>'amount')::int);
CREATE FUNCTION account.deposit(state jsonb, command jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
    IF state->>'balance' IS NULL THEN
        RAISE 'there is no such account' USING ERRCODE = '23514';
    ELSIF (command->>'amount')::int = 0 THEN
        RETURN '[]';
    END IF;
    RETURN jsonb_build_array(jsonb_build_object('type', 'deposited', 'data', command));
END $$;
SELECT es_reducer('account');
CREATE FUNCTION account.enrol(state jsonb, command jsonb) RETURNS jsonb LANGUAGE sql RETURN
    jsonb_build_array(jsonb_build_object('type', 'enrolled', 'data', command, 'tags', jsonb_build_array('course:' || (command->>'course'))));
GRANT USAGE ON SCHEMA account TO reader, writer, operator;

CREATE SCHEMA model AUTHORIZATION operator;
GRANT CREATE ON SCHEMA model TO operator;
SET ROLE operator;
SET search_path = model, public;
CREATE TABLE model.balance (account text PRIMARY KEY, amount bigint NOT NULL);
CREATE TABLE model.mended (works bool NOT NULL);
CREATE FUNCTION model.on_paid(event es_recorded_event) RETURNS void LANGUAGE plpgsql SET search_path = model AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM mended) THEN
        RAISE 'the table of <prices> & "rates" is missing';
    END IF;
END $$;
SELECT es_create_projection('balance', category => 'account', types => '{deposited}', tables => '{balance}', query => $$
    INSERT INTO balance SELECT stream, sum((data->>'amount')::bigint) FROM new_events GROUP BY stream
        ON CONFLICT (account) DO UPDATE SET amount = balance.amount + excluded.amount $$);
SELECT es_create_projection('fails', handler => 'model.on_paid', category => 'paid', on_failure => 'park', max_attempts => 1);
RESET search_path;
RESET ROLE;

CREATE SCHEMA shop;
CREATE FUNCTION shop.on_payment(payload text, metadata jsonb) RETURNS es_ack_event LANGUAGE sql AS $$
    SELECT p->>'id', (p->>'at')::timestamptz, 'paid', 'v1', 'payment-' || (p->>'id'), NULL, NULL::text[]
      FROM (SELECT payload::jsonb AS p) AS message $$;
GRANT USAGE ON SCHEMA shop TO writer, appender;
DO $$ BEGIN
    EXECUTE format('ALTER ROLE gateway IN DATABASE %I SET gateway.inbox_handlers = %L', current_database(),
                   '{"payments/shop": "shop.on_payment"}');
END $$;
