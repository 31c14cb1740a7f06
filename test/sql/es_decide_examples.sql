-- The examples of es_append_if_examples, decided inside the database by es_decide: the same
-- commands have the same outcomes. There is no second query and no position.
CREATE EXTENSION eventstore;
CREATE SCHEMA decisions;
SET search_path = decisions, public;

-- The state is the list of what matches.
CREATE FUNCTION collect(state jsonb, event es_recorded_event) RETURNS jsonb LANGUAGE sql AS $$
    SELECT state || jsonb_build_object('type', event.type, 'data', event.data, 'tags', event.tags, 'at', event.occurred_at) $$;
CREATE FUNCTION seen(state jsonb) RETURNS TABLE (n bigint, type text, data jsonb, tags text[], at timestamptz) LANGUAGE sql AS $$
    SELECT row_number() OVER (), s.* FROM jsonb_to_recordset(state) AS s (type text, data jsonb, tags text[], at timestamptz) $$;
CREATE FUNCTION item(types text[], VARIADIC tags text[] DEFAULT '{}') RETURNS jsonb LANGUAGE sql AS $$
    SELECT jsonb_strip_nulls(jsonb_build_object('types', to_jsonb(types), 'tags', CASE WHEN tags <> '{}' THEN to_jsonb(tags) END)) $$;
CREATE FUNCTION event(type text, data jsonb, occurred_at timestamptz, VARIADIC tags text[]) RETURNS jsonb LANGUAGE sql AS $$
    SELECT jsonb_strip_nulls(jsonb_build_array(jsonb_build_object('type', type, 'data', data, 'occurred_at', occurred_at, 'tags', to_jsonb(tags)))) $$;
CREATE FUNCTION decide(decider text, command jsonb, VARIADIC items jsonb[]) RETURNS void LANGUAGE sql AS $$
    SELECT es_decide(to_jsonb(items), decider, command, 'decisions.collect', initial => '[]') $$;
CREATE FUNCTION outcome(command text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE 'SELECT ' || command;
    RETURN 'ok';
EXCEPTION WHEN OTHERS THEN
    RETURN SQLSTATE || ' ' || SQLERRM;
END $$;

--
-- Courses and students
--
CREATE FUNCTION define_it(state jsonb, c jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
    IF state <> '[]' THEN RAISE 'course % exists', c->>'course'; END IF;
    RETURN decisions.event('defined', c - 'course', NULL, 'course:' || (c->>'course'));
END $$;
CREATE FUNCTION change_it(state jsonb, c jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
    IF state = '[]' THEN RAISE 'course % does not exist', c->>'course'; END IF;
    IF state->-1->'data'->'capacity' = c->'capacity' THEN RAISE 'capacity is % already', c->>'capacity'; END IF;
    RETURN decisions.event('changed', c - 'course', NULL, 'course:' || (c->>'course'));
END $$;
CREATE FUNCTION subscribe_to_it(state jsonb, command jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
    c text := 'course:' || (command->>'course');
    s text := 'student:' || (command->>'student');
    found record;
BEGIN
    SELECT (array_agg((data->>'capacity')::int ORDER BY n DESC) FILTER (WHERE type <> 'subscribed'))[1] AS capacity,
           count(*) FILTER (WHERE type = 'subscribed' AND c = ANY (tags)) AS students,
           count(*) FILTER (WHERE type = 'subscribed' AND s = ANY (tags)) AS courses,
           count(*) FILTER (WHERE type = 'subscribed' AND tags @> ARRAY[c, s]) AS both
      INTO found FROM decisions.seen(state);
    CASE
        WHEN found.capacity IS NULL THEN RAISE 'course % does not exist', command->>'course';
        WHEN found.both > 0 THEN RAISE 'student % is subscribed already', command->>'student';
        WHEN found.students >= found.capacity THEN RAISE 'course % is full', command->>'course';
        WHEN found.courses >= 5 THEN RAISE 'student % has 5 courses', command->>'student';
        ELSE RETURN decisions.event('subscribed', '{}', NULL, c, s);
    END CASE;
END $$;
CREATE FUNCTION define_course(course text, capacity int) RETURNS void LANGUAGE sql AS $$
    SELECT decide('decisions.define_it', jsonb_build_object('course', course, 'capacity', capacity), item('{defined}', 'course:' || course)) $$;
CREATE FUNCTION change_capacity(course text, capacity int) RETURNS void LANGUAGE sql AS $$
    SELECT decide('decisions.change_it', jsonb_build_object('course', course, 'capacity', capacity), item('{defined,changed}', 'course:' || course)) $$;
CREATE FUNCTION subscribe(course text, student text) RETURNS void LANGUAGE sql AS $$
    SELECT decide('decisions.subscribe_to_it', jsonb_build_object('course', course, 'student', student),
                  item('{defined,changed,subscribed}', 'course:' || course), item('{subscribed}', 'student:' || student)) $$;
SELECT command, outcome(command) FROM unnest(ARRAY[
    $$define_course('c1', 12)$$, $$define_course('c1', 12)$$, $$change_capacity('c1', 15)$$, $$change_capacity('c1', 15)$$,
    $$change_capacity('c0', 15)$$, $$subscribe('c0', 's1')$$, $$change_capacity('c1', 3)$$, $$subscribe('c1', 's1')$$,
    $$subscribe('c1', 's1')$$, $$subscribe('c1', 's2')$$, $$subscribe('c1', 's3')$$, $$subscribe('c1', 's4')$$,
    $$change_capacity('c1', 4)$$, $$subscribe('c1', 's4')$$]) AS command;
SELECT outcome(format('define_course(%L, 9)', 'c' || n)), outcome(format('subscribe(%L, %L)', 'c' || n, 's1')) FROM generate_series(2, 6) AS n;
SELECT type, data, tags FROM es_query('[{"tags": ["course:c1"]}]');
SELECT array_agg(tags) FROM es_query('[{"tags": ["student:s1"]}]');

--
-- Names that are unique while used, and three days longer
--
CREATE FUNCTION is_claimed(state jsonb, name text, at timestamptz) RETURNS boolean LANGUAGE sql AS $$
    SELECT coalesce((array_agg(CASE WHEN s.type = 'registered' OR s.type = 'renamed' AND s.data->>'new' = name THEN true
                                    ELSE is_claimed.at - s.at <= '3 days' END ORDER BY s.n DESC))[1], false)
      FROM decisions.seen(state) AS s WHERE 'username:' || name = ANY (s.tags) $$;
CREATE FUNCTION register_it(state jsonb, c jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
    IF decisions.is_claimed(state, c->>'name', (c->>'at')::timestamptz) THEN RAISE 'name % is taken', c->>'name'; END IF;
    RETURN decisions.event('registered', '{}', (c->>'at')::timestamptz, 'username:' || (c->>'name'));
END $$;
CREATE FUNCTION close_it(state jsonb, c jsonb) RETURNS jsonb LANGUAGE sql AS $$
    SELECT decisions.event('closed', '{}', (c->>'at')::timestamptz, 'username:' || (c->>'name')) $$;
CREATE FUNCTION rename_it(state jsonb, c jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
    IF decisions.is_claimed(state, c->>'new', (c->>'at')::timestamptz) THEN RAISE 'name % is taken', c->>'new'; END IF;
    RETURN decisions.event('renamed', c - 'at', (c->>'at')::timestamptz, 'username:' || (c->>'old'), 'username:' || (c->>'new'));
END $$;
CREATE FUNCTION register(name text, at timestamptz) RETURNS void LANGUAGE sql AS $$
    SELECT decide('decisions.register_it', jsonb_build_object('name', name, 'at', at), item('{registered,closed,renamed}', 'username:' || name)) $$;
CREATE FUNCTION close_account(name text, at timestamptz) RETURNS void LANGUAGE sql AS $$
    SELECT decide('decisions.close_it', jsonb_build_object('name', name, 'at', at), item('{registered,closed,renamed}', 'username:' || name)) $$;
CREATE FUNCTION rename(old text, new text, at timestamptz) RETURNS void LANGUAGE sql AS $$
    SELECT decide('decisions.rename_it', jsonb_build_object('old', old, 'new', new, 'at', at),
                  item('{registered,closed,renamed}', 'username:' || old), item('{registered,closed,renamed}', 'username:' || new)) $$;
SELECT command, outcome(command) FROM unnest(ARRAY[
    $$register('u1', '2026-01-01')$$, $$register('u1', '2026-01-02')$$, $$close_account('u1', '2026-01-10')$$,
    $$register('u1', '2026-01-13')$$, $$register('u1', '2026-01-14')$$, $$register('u1', '2026-02-01')$$,
    $$register('u2', '2026-01-01')$$, $$rename('u2', 'u1', '2026-01-20')$$, $$rename('u2', 'u3', '2026-01-20')$$,
    $$register('u3', '2026-02-20')$$, $$register('u2', '2026-01-23')$$, $$register('u2', '2026-01-24')$$]) AS command;

--
-- Invoice numbers without gaps: a query without tags
--
CREATE FUNCTION number_it(state jsonb, command jsonb) RETURNS jsonb LANGUAGE sql AS $$
    SELECT jsonb_build_array(jsonb_build_object('type', 'invoiced', 'stream', 'invoice-' || jsonb_array_length(state) + 1,
                                                'data', jsonb_build_object('number', jsonb_array_length(state) + 1))) $$;
CREATE FUNCTION invoice() RETURNS void LANGUAGE sql AS $$ SELECT decide('decisions.number_it', '{}', item('{invoiced}')) $$;
SELECT outcome('invoice()') FROM generate_series(1, 2);
SELECT stream, data FROM es_query('[{"types": ["invoiced"]}]');

--
-- A code that confirms an address once, within 60 minutes
--
CREATE FUNCTION start_it(state jsonb, c jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
    IF state <> '[]' THEN RAISE 'code was given'; END IF;
    RETURN decisions.event('started', '{}', (c->>'at')::timestamptz, 'email:' || (c->>'email'), 'otp:' || (c->>'otp'));
END $$;
CREATE FUNCTION confirm_it(state jsonb, c jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
    found record;
BEGIN
    SELECT max(at) FILTER (WHERE type = 'started') AS started, bool_or(type = 'confirmed') AS confirmed INTO found FROM decisions.seen(state);
    CASE
        WHEN found.started IS NULL THEN RAISE 'no such code for this address';
        WHEN found.confirmed THEN RAISE 'code was used';
        WHEN (c->>'at')::timestamptz - found.started > '60 minutes' THEN RAISE 'code has expired';
        ELSE RETURN decisions.event('confirmed', '{}', (c->>'at')::timestamptz, 'email:' || (c->>'email'), 'otp:' || (c->>'otp'));
    END CASE;
END $$;
CREATE FUNCTION sign_up(email text, otp text, at timestamptz) RETURNS void LANGUAGE sql AS $$
    SELECT decide('decisions.start_it', jsonb_build_object('email', email, 'otp', otp, 'at', at), item(NULL, 'otp:' || otp)) $$;
CREATE FUNCTION confirm(email text, otp text, at timestamptz) RETURNS void LANGUAGE sql AS $$
    SELECT decide('decisions.confirm_it', jsonb_build_object('email', email, 'otp', otp, 'at', at), item('{started,confirmed}', 'email:' || email, 'otp:' || otp)) $$;
SELECT command, outcome(command) FROM unnest(ARRAY[
    $$sign_up('a@x', '111', '2026-01-01 12:00')$$, $$confirm('a@x', '999', '2026-01-01 12:10')$$, $$confirm('b@x', '111', '2026-01-01 12:10')$$,
    $$confirm('a@x', '111', '2026-01-01 13:01')$$, $$confirm('a@x', '111', '2026-01-01 13:00')$$, $$confirm('a@x', '111', '2026-01-01 13:00')$$]) AS command;

--
-- Prices that were right within the last 10 minutes
--
CREATE FUNCTION buy_it(state jsonb, c jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
    IF (SELECT bool_or(price = (c->>'shown')::int AND (until IS NULL OR (c->>'at')::timestamptz - until <= '10 minutes'))
          FROM (SELECT (data->>'price')::int AS price, lead(at) OVER (ORDER BY n) AS until FROM decisions.seen(state)) AS p) IS NOT TRUE THEN
        RAISE 'price % is not valid', c->>'shown';
    END IF;
    RETURN decisions.event('bought', jsonb_build_object('price', c->'shown'), (c->>'at')::timestamptz, 'product:' || (c->>'product'));
END $$;
CREATE FUNCTION set_price(product text, price int, at timestamptz) RETURNS void LANGUAGE sql AS $$
    SELECT es_append('price-' || product, 'any', 'priced', jsonb_build_object('price', price), occurred_at => at, tags => ARRAY['product:' || product]) $$;
CREATE FUNCTION buy(product text, shown int, at timestamptz) RETURNS void LANGUAGE sql AS $$
    SELECT decide('decisions.buy_it', jsonb_build_object('product', product, 'shown', shown, 'at', at), item('{priced}', 'product:' || product)) $$;
SELECT command, outcome(command) FROM unnest(ARRAY[
    $$buy('p0', 10, '2026-01-01 12:00')$$, $$set_price('p1', 10, '2026-01-01 11:00')$$, $$set_price('p1', 12, '2026-01-01 12:00')$$,
    $$buy('p1', 10, '2026-01-01 12:20')$$, $$buy('p1', 10, '2026-01-01 12:09')$$, $$buy('p1', 12, '2026-01-01 12:09')$$,
    $$buy('p1', 12, '2026-01-01 12:20')$$, $$buy('p1', 11, '2026-01-01 12:09')$$]) AS command;

--
-- A token that is used once
--
CREATE FUNCTION place_it(state jsonb, c jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
    IF state <> '[]' THEN RAISE 'token % was used', c->>'token'; END IF;
    RETURN decisions.event('placed', '{}', NULL, 'order:' || (c->>'order'), 'idempotency:' || (c->>'token'));
END $$;
CREATE FUNCTION place(order_id text, token text) RETURNS void LANGUAGE sql AS $$
    SELECT decide('decisions.place_it', jsonb_build_object('order', order_id, 'token', token), item(NULL, 'idempotency:' || token)) $$;
SELECT command, outcome(command) FROM unnest(ARRAY[$$place('o1', '11111')$$, $$place('o2', '11111')$$, $$place('o2', '22222')$$]) AS command;

SET client_min_messages = warning;
RESET search_path;
DROP SCHEMA decisions CASCADE;
DROP EXTENSION eventstore;
