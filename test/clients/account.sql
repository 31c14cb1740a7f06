-- What examples/decide.sql is tested with: an account, as in decide.py.
CREATE SCHEMA account;
CREATE FUNCTION account.apply_moved(state jsonb, data jsonb) RETURNS jsonb IMMUTABLE LANGUAGE sql
RETURN jsonb_build_object('balance', coalesce((state->>'balance')::int, 0) + (data->>'amount')::int);
CREATE FUNCTION account.move(state jsonb, command jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
	balance int := coalesce((state->>'balance')::int, 0);
	amount int := command->'amount';
BEGIN
	IF balance + amount < 0 THEN
		RAISE EXCEPTION 'only % left', balance;
	END IF;
	RETURN CASE amount WHEN 0 THEN '[]' ELSE
		jsonb_build_array(jsonb_build_object('type', 'moved', 'data', jsonb_build_object('saw', balance, 'amount', amount))) END;
END $$;
SELECT es_reducer('account');

-- One that is always too late, and says when it was asked.
CREATE FUNCTION account.move_late(state jsonb, command jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
	RAISE NOTICE 'asked at %', extract(epoch FROM clock_timestamp()) * 1000;
	PERFORM es_append('late-1', 'any', 'moved', '{"saw": 0, "amount": 1}');
	RETURN account.move(state, command);
END $$;
