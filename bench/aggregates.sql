-- The objects of the benchmark of aggregates, in a database of its own: streams of
-- 100 and of 1,000 events, and one of a million.
CREATE EXTENSION eventstore;

INSERT INTO es_import (stream, type, data)
SELECT 'account-' || s, 'deposited', jsonb_build_object('amount', i, 'note', repeat('x', 150))
  FROM generate_series(1, 1000) i, generate_series(1, 100) s;
INSERT INTO es_import (stream, type, data)
SELECT 'short-' || s, 'deposited', jsonb_build_object('amount', i, 'note', repeat('x', 150))
  FROM generate_series(1, 100) i, generate_series(1, 100) s;
INSERT INTO es_import (stream, type, data)
SELECT 'huge-1', 'deposited', jsonb_build_object('amount', i, 'note', repeat('x', 150))
  FROM generate_series(1, 1000000) i;
VACUUM (ANALYZE) es_events;

-- The same fold as a reducer, as a part of a schema's reducer, and by hand.
CREATE FUNCTION add_amount(state jsonb, event es_recorded_event) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
    RETURN jsonb_build_object('balance', coalesce((state->>'balance')::bigint, 0) + (event.data->>'amount')::bigint);
END $$;
CREATE SCHEMA account;
CREATE FUNCTION account.apply_deposited(state jsonb, data jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
    RETURN jsonb_build_object('balance', coalesce((state->>'balance')::bigint, 0) + (data->>'amount')::bigint);
END $$;
SELECT es_reducer('account');
CREATE SCHEMA account_sql;
CREATE FUNCTION account_sql.apply_deposited(state jsonb, data jsonb) RETURNS jsonb LANGUAGE sql
    RETURN jsonb_build_object('balance', coalesce((state->>'balance')::bigint, 0) + (data->>'amount')::bigint);
SELECT es_reducer('account_sql');
CREATE FUNCTION add_loop(stream text) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
    state jsonb := '{}';
    event es_recorded_event;
BEGIN
    FOR event IN SELECT * FROM es_load(stream) LOOP
        state := jsonb_build_object('balance', coalesce((state->>'balance')::bigint, 0) + (event.data->>'amount')::bigint);
    END LOOP;
    RETURN state;
END $$;
CREATE FUNCTION add_calls(stream text) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
    state jsonb := '{}';
    event es_recorded_event;
BEGIN
    FOR event IN SELECT * FROM es_load(stream) LOOP
        state := add_amount(state, event);
    END LOOP;
    RETURN state;
END $$;
CREATE AGGREGATE add_all(event es_recorded_event) (SFUNC = add_amount, STYPE = jsonb, INITCOND = '{}');

CREATE FUNCTION merge_loop(stream text) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
    state jsonb := '{}';
    event es_recorded_event;
BEGIN
    FOR event IN SELECT * FROM es_load(stream) LOOP
        state := state || event.data;
    END LOOP;
    RETURN state;
END $$;
CREATE FUNCTION merge_calls(stream text) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
    state jsonb := '{}';
    event es_recorded_event;
BEGIN
    FOR event IN SELECT * FROM es_load(stream) LOOP
        state := es_merge(state, event);
    END LOOP;
    RETURN state;
END $$;
CREATE AGGREGATE merge_all(event es_recorded_event) (SFUNC = es_merge, STYPE = jsonb, INITCOND = '{}');
CREATE AGGREGATE concat_all(data jsonb) (SFUNC = jsonb_concat, STYPE = jsonb, INITCOND = '{}');

SELECT es_snapshot('huge-1', 'add_amount'::regproc);

CREATE FUNCTION deposit(state jsonb, command jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
    IF coalesce((state->>'balance')::bigint, 0) < 0 THEN
        RAISE EXCEPTION 'the account is closed';
    END IF;
    RETURN jsonb_build_array(jsonb_build_object('type', 'deposited', 'data', command));
END $$;
