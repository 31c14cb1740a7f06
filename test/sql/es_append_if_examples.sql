-- Decisions over events by tags and types: the known examples of dynamic consistency
-- boundaries, each with its outcomes. Each function queries, decides and appends.
CREATE EXTENSION eventstore;
CREATE SCHEMA decisions;
SET search_path = decisions, public;

-- The events that match, and the position after which nothing may come.
CREATE FUNCTION item(types text[], VARIADIC tags text[] DEFAULT '{}') RETURNS jsonb LANGUAGE sql AS $$
    SELECT jsonb_strip_nulls(jsonb_build_object('types', to_jsonb(types), 'tags', CASE WHEN tags <> '{}' THEN to_jsonb(tags) END)) $$;
CREATE FUNCTION event(type text, data jsonb, occurred_at timestamptz, VARIADIC tags text[]) RETURNS jsonb LANGUAGE sql AS $$
    SELECT jsonb_strip_nulls(jsonb_build_array(jsonb_build_object('type', type, 'data', data, 'occurred_at', occurred_at, 'tags', to_jsonb(tags)))) $$;
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
CREATE FUNCTION define_course(course text, capacity int) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    query jsonb := jsonb_build_array(item('{defined}', 'course:' || course));
    last bigint;
BEGIN
    SELECT max(position) INTO last FROM es_query(query);
    IF last IS NOT NULL THEN RAISE 'course % exists', course; END IF;
    PERFORM es_append_if(event('defined', jsonb_build_object('capacity', capacity), NULL, 'course:' || course), query);
END $$;
CREATE FUNCTION change_capacity(course text, new_capacity int) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    query jsonb := jsonb_build_array(item('{defined,changed}', 'course:' || course));
    last record;
BEGIN
    SELECT position, data->'capacity' AS capacity INTO last FROM es_query(query, max_count => 1, backward => true);
    IF last.position IS NULL THEN RAISE 'course % does not exist', course; END IF;
    IF last.capacity::int = new_capacity THEN RAISE 'capacity is % already', new_capacity; END IF;
    PERFORM es_append_if(event('changed', jsonb_build_object('capacity', new_capacity), NULL, 'course:' || course), query, last.position);
END $$;
CREATE FUNCTION subscribe(course text, student text) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    c text := 'course:' || course;
    s text := 'student:' || student;
    query jsonb := jsonb_build_array(item('{defined,changed,subscribed}', c), item('{subscribed}', s));
    seen record;
BEGIN
    SELECT max(position) AS position,
           (array_agg((data->>'capacity')::int ORDER BY position DESC) FILTER (WHERE type <> 'subscribed'))[1] AS capacity,
           count(*) FILTER (WHERE type = 'subscribed' AND c = ANY (tags)) AS students,
           count(*) FILTER (WHERE type = 'subscribed' AND s = ANY (tags)) AS courses,
           count(*) FILTER (WHERE type = 'subscribed' AND tags @> ARRAY[c, s]) AS both
      INTO seen FROM es_query(query);
    CASE
        WHEN seen.capacity IS NULL THEN RAISE 'course % does not exist', course;
        WHEN seen.both > 0 THEN RAISE 'student % is subscribed already', student;
        WHEN seen.students >= seen.capacity THEN RAISE 'course % is full', course;
        WHEN seen.courses >= 5 THEN RAISE 'student % has 5 courses', student;
        ELSE PERFORM es_append_if(event('subscribed', '{}', NULL, c, s), query, seen.position);
    END CASE;
END $$;
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
CREATE FUNCTION claimed(name text, at timestamptz) RETURNS TABLE (claimed boolean, query jsonb, last bigint) LANGUAGE sql AS $$
    SELECT coalesce((array_agg(CASE WHEN e.type = 'registered' OR e.type = 'renamed' AND e.data->>'new' = name THEN true
                                    ELSE at - e.occurred_at <= '3 days' END ORDER BY e.position DESC))[1], false), q.query, coalesce(max(e.position), 0)
      FROM (SELECT jsonb_build_array(item('{registered,closed,renamed}', 'username:' || name))) AS q (query) LEFT JOIN LATERAL es_query(q.query) AS e ON true
     GROUP BY q.query $$;
CREATE FUNCTION register(name text, at timestamptz) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    seen record;
BEGIN
    SELECT * INTO seen FROM claimed(name, at);
    IF seen.claimed THEN RAISE 'name % is taken', name; END IF;
    PERFORM es_append_if(event('registered', '{}', at, 'username:' || name), seen.query, seen.last);
END $$;
CREATE FUNCTION close_account(name text, at timestamptz) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    seen record;
BEGIN
    SELECT * INTO seen FROM claimed(name, at);
    PERFORM es_append_if(event('closed', '{}', at, 'username:' || name), seen.query, seen.last);
END $$;
CREATE FUNCTION rename(old text, new text, at timestamptz) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    query jsonb := jsonb_build_array(item('{registered,closed,renamed}', 'username:' || old), item('{registered,closed,renamed}', 'username:' || new));
    -- before the decision, and of both names: the last position of one query is not that of the other
    last bigint := (SELECT max(position) FROM es_query(query));
BEGIN
    IF (SELECT claimed FROM claimed(new, at)) THEN RAISE 'name % is taken', new; END IF;
    PERFORM es_append_if(event('renamed', jsonb_build_object('old', old, 'new', new), at, 'username:' || old, 'username:' || new), query, last);
END $$;
SELECT command, outcome(command) FROM unnest(ARRAY[
    $$register('u1', '2026-01-01')$$, $$register('u1', '2026-01-02')$$, $$close_account('u1', '2026-01-10')$$,
    $$register('u1', '2026-01-13')$$, $$register('u1', '2026-01-14')$$, $$register('u1', '2026-02-01')$$,
    $$register('u2', '2026-01-01')$$, $$rename('u2', 'u1', '2026-01-20')$$, $$rename('u2', 'u3', '2026-01-20')$$,
    $$register('u3', '2026-02-20')$$, $$register('u2', '2026-01-23')$$, $$register('u2', '2026-01-24')$$]) AS command;

--
-- Invoice numbers without gaps: a query without tags
--
CREATE FUNCTION invoice() RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    last record;
    number int;
BEGIN
    SELECT position, data->'number' AS number INTO last FROM es_query('[{"types": ["invoiced"]}]', max_count => 1, backward => true);
    number := coalesce(last.number::int, 0) + 1;
    PERFORM es_append_if(jsonb_build_array(jsonb_build_object('type', 'invoiced', 'stream', 'invoice-' || number, 'data', jsonb_build_object('number', number))),
                         '[{"types": ["invoiced"]}]', coalesce(last.position, 0));
END $$;
SELECT outcome('invoice()') FROM generate_series(1, 2);
SELECT stream, data FROM es_query('[{"types": ["invoiced"]}]');

--
-- A code that confirms an address once, within 60 minutes
--
CREATE FUNCTION sign_up(email text, otp text, at timestamptz) RETURNS void LANGUAGE sql AS $$
    SELECT es_append_if(event('started', '{}', at, 'email:' || email, 'otp:' || otp), jsonb_build_array(item(NULL, 'otp:' || otp))) $$;
CREATE FUNCTION confirm(email text, otp text, at timestamptz) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    query jsonb := jsonb_build_array(item('{started,confirmed}', 'email:' || email, 'otp:' || otp));
    seen record;
BEGIN
    SELECT max(position) AS position, max(occurred_at) FILTER (WHERE type = 'started') AS started, bool_or(type = 'confirmed') AS confirmed
      INTO seen FROM es_query(query);
    CASE
        WHEN seen.started IS NULL THEN RAISE 'no such code for this address';
        WHEN seen.confirmed THEN RAISE 'code was used';
        WHEN at - seen.started > '60 minutes' THEN RAISE 'code has expired';
        ELSE PERFORM es_append_if(event('confirmed', '{}', at, 'email:' || email, 'otp:' || otp), query, seen.position);
    END CASE;
END $$;
SELECT command, outcome(command) FROM unnest(ARRAY[
    $$sign_up('a@x', '111', '2026-01-01 12:00')$$, $$confirm('a@x', '999', '2026-01-01 12:10')$$, $$confirm('b@x', '111', '2026-01-01 12:10')$$,
    $$confirm('a@x', '111', '2026-01-01 13:01')$$, $$confirm('a@x', '111', '2026-01-01 13:00')$$, $$confirm('a@x', '111', '2026-01-01 13:00')$$]) AS command;

--
-- Prices that were right within the last 10 minutes
--
CREATE FUNCTION set_price(product text, price int, at timestamptz) RETURNS void LANGUAGE sql AS $$
    SELECT es_append_if(event('priced', jsonb_build_object('price', price), at, 'product:' || product), '[{"types": ["never"], "tags": ["never"]}]') $$;
CREATE FUNCTION buy(product text, shown int, at timestamptz) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    query jsonb := jsonb_build_array(item('{priced}', 'product:' || product));
    seen record;
BEGIN
    SELECT max(position) AS position, bool_or(price = shown AND (until IS NULL OR at - until <= '10 minutes')) AS valid INTO seen
      FROM (SELECT position, (data->>'price')::int AS price, lead(occurred_at) OVER (ORDER BY position) AS until FROM es_query(query)) AS p;
    IF seen.valid IS NOT TRUE THEN RAISE 'price % is not valid', shown; END IF;
    PERFORM es_append_if(event('bought', jsonb_build_object('price', shown), at, 'product:' || product), query, seen.position);
END $$;
SELECT command, outcome(command) FROM unnest(ARRAY[
    $$buy('p0', 10, '2026-01-01 12:00')$$, $$set_price('p1', 10, '2026-01-01 11:00')$$, $$set_price('p1', 12, '2026-01-01 12:00')$$,
    $$buy('p1', 10, '2026-01-01 12:20')$$, $$buy('p1', 10, '2026-01-01 12:09')$$, $$buy('p1', 12, '2026-01-01 12:09')$$,
    $$buy('p1', 12, '2026-01-01 12:20')$$, $$buy('p1', 11, '2026-01-01 12:09')$$]) AS command;

--
-- A token that is used once
--
CREATE FUNCTION place(order_id text, token text) RETURNS void LANGUAGE sql AS $$
    SELECT es_append_if(event('placed', '{}', NULL, 'order:' || order_id, 'idempotency:' || token), jsonb_build_array(item(NULL, 'idempotency:' || token))) $$;
SELECT command, outcome(command) FROM unnest(ARRAY[$$place('o1', '11111')$$, $$place('o2', '11111')$$, $$place('o2', '22222')$$]) AS command;

-- A decision that is too late is refused, whatever it was about
SELECT max(position) AS seen FROM es_query('[{"tags": ["course:c6"]}, {"tags": ["student:s9"]}]') \gset
SELECT outcome($$define_course('c9', 9)$$), outcome($$subscribe('c9', 's9')$$);
SELECT outcome(format($$es_append_if('[{"type": "subscribed", "tags": ["course:c6", "student:s9"]}]', '[{"tags": ["course:c6"]}, {"tags": ["student:s9"]}]', %s)$$, :seen));

SET client_min_messages = warning;
RESET search_path;
DROP SCHEMA decisions CASCADE;
DROP EXTENSION eventstore;
