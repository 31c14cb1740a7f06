-- A database for the tests of doc/guide/testing.md: the account, its read model, a subscription.
CREATE EXTENSION eventstore;
SELECT current_database() AS db \gset
ALTER DATABASE :"db" SET eventstore.test_mode = on;
CREATE SCHEMA account;
CREATE FUNCTION account.apply_opened(state jsonb, data jsonb) RETURNS jsonb LANGUAGE sql
    RETURN data || '{"balance": 0}';
CREATE FUNCTION account.apply_deposited(state jsonb, data jsonb) RETURNS jsonb LANGUAGE sql
    RETURN state || jsonb_build_object('balance', (state->>'balance')::int + (data->>'amount')::int);
CREATE FUNCTION account.apply_withdrawn(state jsonb, data jsonb) RETURNS jsonb LANGUAGE sql
    RETURN state || jsonb_build_object('balance', (state->>'balance')::int - (data->>'amount')::int);
SELECT es_reducer('account');
CREATE FUNCTION account.withdraw(state jsonb, command jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
    IF (command->>'amount')::int > (state->>'balance')::int THEN
        RAISE EXCEPTION 'only % left', state->>'balance';
    END IF;
    RETURN jsonb_build_array(jsonb_build_object('type', 'withdrawn', 'data', command));
END $$;
CREATE TABLE balance (account text PRIMARY KEY, amount bigint NOT NULL);
SELECT es_create_projection('balance', category => 'account', tables => '{balance}', query => $$
    INSERT INTO balance
    SELECT stream, sum(CASE type WHEN 'deposited' THEN (data->>'amount')::bigint
                                 WHEN 'withdrawn' THEN -(data->>'amount')::bigint ELSE 0 END)
      FROM new_events GROUP BY stream
    ON CONFLICT (account) DO UPDATE SET amount = balance.amount + excluded.amount $$);
SELECT es_create_subscription('mails', category => 'account');
