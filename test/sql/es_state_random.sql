-- Folds in random use, against a fold in plain SQL over es_load: random streams,
-- versions, times, initial states and reducers, with snapshots that are saved,
-- deleted, and made stale by other definitions at random. Commands are executed in
-- between, and some of them again.
--
-- One seed gives one run, but for the times of the appends;
-- SET client_min_messages = debug1 tells it.
CREATE EXTENSION eventstore;
CREATE TABLE counts (what text PRIMARY KEY, n bigint);
CREATE TABLE commands (id uuid PRIMARY KEY, stream text, version bigint, "position" bigint, events int);
CREATE SCHEMA app;

CREATE FUNCTION note(what text) RETURNS void LANGUAGE sql AS $$
    INSERT INTO counts VALUES (what, 1) ON CONFLICT ON CONSTRAINT counts_pkey DO UPDATE SET n = counts.n + 1
$$;
-- A random number from 0 to n - 1.
CREATE FUNCTION dice(n int) RETURNS int LANGUAGE sql VOLATILE AS 'SELECT floor(random() * n)::int';

-- The reducers: those of the extension, and three whose definitions change.
-- What they do now is in reducers: a factor, and whether a type counts.
CREATE TABLE reducers (name text PRIMARY KEY, factor int NOT NULL, extra boolean NOT NULL);
INSERT INTO reducers VALUES ('es_merge', 0, false), ('es_last', 0, false), ('r_plpgsql', 1, false), ('r_strict', 1, false), ('app.es_reduce', 1, false);

CREATE FUNCTION define(of text, factor int, extra boolean) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    UPDATE reducers SET factor = define.factor, extra = define.extra WHERE name = of;
    IF of = 'r_plpgsql' THEN
        -- Order matters in it.
        EXECUTE format('CREATE OR REPLACE FUNCTION r_plpgsql(state jsonb, event es_recorded_event) RETURNS jsonb LANGUAGE plpgsql AS
            ''BEGIN RETURN jsonb_build_object(''''n'''', (coalesce((state->>''''n'''')::bigint, 7) * 31 + event.version * %s + length(event.data::text)) %% 1000003); END''', factor);
    ELSIF of = 'r_strict' THEN
        EXECUTE format('CREATE OR REPLACE FUNCTION r_strict(state jsonb, event es_recorded_event) RETURNS jsonb STRICT LANGUAGE sql AS
            ''SELECT CASE WHEN event.type = ''''gone'''' THEN NULL ELSE coalesce(state, ''''{}'''') || jsonb_build_object(''''v'''', event.version * %s, event.type, event.data) END''', factor);
    ELSE
        EXECUTE format('CREATE OR REPLACE FUNCTION app.apply_a(state jsonb, data jsonb) RETURNS jsonb LANGUAGE sql AS
            ''SELECT jsonb_build_object(''''a'''', (coalesce((state->>''''a'''')::bigint, 0) * 3 + %s) %% 1000003, ''''last'''', data, ''''b'''', state->''''b'''')''', factor);
        IF to_regprocedure('app.apply_b(jsonb, jsonb)') IS NOT NULL THEN
            DROP FUNCTION app.apply_b;
        END IF;
        IF extra THEN
            CREATE FUNCTION app.apply_b(state jsonb, data jsonb) RETURNS jsonb LANGUAGE plpgsql AS
                'BEGIN RETURN coalesce(state, ''{}'') || jsonb_build_object(''b'', coalesce((state->>''b'')::int, 0) + 1); END';
        END IF;
    END IF;
END $$;
CREATE FUNCTION app.apply_gone(state jsonb, data jsonb) RETURNS jsonb LANGUAGE sql AS 'SELECT NULL::jsonb';
SELECT define(name, factor, extra) FROM reducers WHERE factor > 0;
SELECT es_reducer('app');

-- The model: what one event makes of a state.
CREATE FUNCTION step(r reducers, state jsonb, e es_recorded_event) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
    RETURN CASE r.name
        WHEN 'es_merge' THEN coalesce(state, '{}') || e.data
        WHEN 'es_last' THEN e.data
        WHEN 'r_plpgsql' THEN jsonb_build_object('n', (coalesce((state->>'n')::bigint, 7) * 31 + e.version * r.factor + length(e.data::text)) % 1000003)
        WHEN 'r_strict' THEN CASE WHEN e.type <> 'gone' THEN state || jsonb_build_object('v', e.version * r.factor, e.type, e.data) END
        ELSE CASE e.type
            WHEN 'a' THEN jsonb_build_object('a', (coalesce((state->>'a')::bigint, 0) * 3 + r.factor) % 1000003, 'last', e.data, 'b', state->'b')
            WHEN 'b' THEN CASE WHEN r.extra THEN coalesce(state, '{}') || jsonb_build_object('b', coalesce((state->>'b')::int, 0) + 1) ELSE state END
            WHEN 'gone' THEN NULL
            ELSE state END
        END;
END $$;

CREATE FUNCTION expected(of_stream text, of text, initial jsonb, at_version bigint, at_time timestamptz, by_time text, OUT state jsonb, OUT version bigint) LANGUAGE plpgsql AS $$
DECLARE e es_recorded_event; r reducers;
BEGIN
    SELECT * INTO r FROM reducers WHERE name = of;
    state := initial;
    version := 0;
    FOR e IN SELECT l.* FROM es_load(of_stream) l WHERE at_version IS NULL OR l.version <= at_version
              ORDER BY CASE WHEN by_time = 'occurred' THEN coalesce(l.occurred_at, l.recorded_at) END, l.version LOOP
        IF by_time = 'occurred' THEN
            CONTINUE WHEN coalesce(e.occurred_at, e.recorded_at) > at_time;
        ELSE
            EXIT WHEN e.recorded_at > at_time;
        END IF;
        state := step(r, state, e);
        version := greatest(version, e.version);
    END LOOP;
END $$;

-- Data with random keys out of few or many; es_last and es_merge have what comes.
CREATE FUNCTION random_data() RETURNS jsonb LANGUAGE sql VOLATILE AS $$
    SELECT coalesce(jsonb_object_agg('k' || dice(CASE WHEN many THEN 200 ELSE 3 END), CASE dice(5) WHEN 0 THEN 'null' WHEN 1 THEN to_jsonb(repeat('long', dice(400)))
                    WHEN 2 THEN jsonb_build_array(dice(10), jsonb_build_object('x', dice(10))) ELSE to_jsonb(dice(1000)) END), '{}')
      FROM (SELECT dice(3) = 0 AS many, dice(5) AS keys) d, generate_series(1, keys)
$$;
CREATE FUNCTION random_time(of_stream text) RETURNS timestamptz LANGUAGE sql VOLATILE AS $$
    SELECT t + (dice(3) - 1) * interval '1 microsecond'
      FROM (SELECT CASE WHEN dice(3) = 0 THEN coalesce(occurred_at, recorded_at) ELSE recorded_at END AS t FROM es_load(of_stream) ORDER BY random() LIMIT 1) x
$$;
CREATE FUNCTION random_reducer() RETURNS text LANGUAGE sql VOLATILE AS 'SELECT name FROM reducers ORDER BY random() LIMIT 1';
CREATE FUNCTION random_stream() RETURNS text LANGUAGE sql VOLATILE AS $$ SELECT 's-' || dice(16) $$;

-- A few appends; sometimes rows of a dump, recorded at any time.
CREATE FUNCTION do_append() RETURNS void LANGUAGE plpgsql AS $$
DECLARE s text := random_stream();
BEGIN
    FOR i IN 0 .. CASE WHEN dice(10) = 0 THEN 40 ELSE dice(5) END LOOP
        IF dice(6) = 0 THEN
            INSERT INTO es_events (position, version, next_xid, recorded_at, id, stream, type, data)
            VALUES (nextval('es_position'), es_stream_version(s) + 1, '1', clock_timestamp() + (dice(2001) - 1000) * interval '1 ms', es_uuid7(), s, 'a', random_data());
        ELSE
            PERFORM es_append(s, 'any', (ARRAY['a', 'b', 'c', 'd', 'gone'])[1 + dice(CASE WHEN dice(4) = 0 THEN 5 ELSE 4 END)], random_data(),
                              occurred_at => CASE WHEN dice(3) = 0 THEN clock_timestamp() + (dice(4001) - 2000) * interval '1 ms' END);
        END IF;
    END LOOP;
    PERFORM note('appends');
END $$;

CREATE FUNCTION do_state() RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    s CONSTANT text := random_stream();
    of CONSTANT text := random_reducer();
    initial CONSTANT jsonb := CASE WHEN dice(4) > 0 THEN '{}' WHEN dice(3) = 0 THEN NULL WHEN dice(2) = 0 THEN '{"k1": 1, "n": 5}' ELSE '{"a": 2}' END;
    at_version CONSTANT bigint := CASE WHEN dice(2) = 0 THEN dice(es_stream_version(s)::int + 5) END;
    at_time CONSTANT timestamptz := CASE WHEN dice(3) = 0 THEN random_time(s) END;
    by_time CONSTANT text := CASE WHEN dice(4) = 0 THEN 'occurred' ELSE 'recorded' END;
    was record;
    should record;
BEGIN
    EXECUTE format('SET LOCAL eventstore.snapshot_every = %s', (ARRAY[0, 1, 1, 3, 7, 200])[1 + dice(6)]);
    was := es_state(s, (of || '(jsonb, es_recorded_event)')::regprocedure, initial, at_version, at_time, by_time);
    should := expected(s, of, initial, at_version, at_time, by_time);
    RAISE DEBUG 'es_state(%, %, %, %, %, %) = %', s, of, initial, at_version, at_time, by_time, was;
    IF was IS DISTINCT FROM should THEN
        RAISE EXCEPTION 'es_state(%, %, %, %, %, %): % should be %', s, of, initial, at_version, at_time, by_time, was, should USING ERRCODE = 'XX999';
    END IF;
    PERFORM note('states');
    IF at_time IS NULL AND by_time = 'recorded' AND EXISTS (SELECT FROM es_snapshots k WHERE k.stream = s AND starts_with(k.reducer, 'public.' || of) AND k.version < should.version) THEN
        PERFORM note('states with a snapshot before');
    END IF;
END $$;

CREATE FUNCTION do_snapshot() RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    s CONSTANT text := random_stream();
    version CONSTANT bigint := es_snapshot(s, (random_reducer() || '(jsonb, es_recorded_event)')::regprocedure, CASE WHEN dice(2) = 0 THEN '{}'::jsonb END);
BEGIN
    IF version IS DISTINCT FROM es_stream_version(s) THEN
        RAISE EXCEPTION 'es_snapshot(%): %', s, version USING ERRCODE = 'XX999';
    END IF;
    PERFORM note('snapshots');
END $$;

CREATE FUNCTION do_history() RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    s CONSTANT text := random_stream();
    of CONSTANT text := random_reducer();
    state jsonb := '{}';
    e es_recorded_event;
    r reducers;
    h record;
    n bigint := 0;
BEGIN
    SELECT * INTO r FROM reducers WHERE name = of;
    FOR h IN SELECT * FROM es_history(s, (of || '(jsonb, es_recorded_event)')::regprocedure) LOOP
        n := n + 1;
        e := es_load(s, n - 1, 1);
        state := step(r, state, e);
        IF (h.version, h.recorded_at, h.type, h.state) IS DISTINCT FROM (n, e.recorded_at, e.type, state) THEN
            RAISE EXCEPTION 'es_history(%, %): % should be %', s, of, h, state USING ERRCODE = 'XX999';
        END IF;
    END LOOP;
    IF n <> es_stream_version(s) THEN
        RAISE EXCEPTION 'es_history(%, %) has % events', s, of, n USING ERRCODE = 'XX999';
    END IF;
    PERFORM note('histories');
END $$;

-- Decides what the command says, and reports the state that it has seen.
CREATE FUNCTION decide(state jsonb, command jsonb) RETURNS jsonb LANGUAGE sql AS $$
    SELECT CASE WHEN jsonb_array_length(command->'events') = 0 THEN '[]' ELSE jsonb_set(command->'events', '{0, data, saw}', to_jsonb(md5(coalesce(state::text, 'null')))) END
$$;
CREATE FUNCTION do_execute() RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    s CONSTANT text := random_stream();
    of CONSTANT text := random_reducer();
    n CONSTANT int := dice(4);
    id CONSTANT uuid := CASE WHEN dice(2) = 0 THEN md5(random()::text) END;
    before record;
    was record;
    should record;
BEGIN
    EXECUTE format('SET LOCAL eventstore.snapshot_every = %s', (ARRAY[0, 1, 3, 200])[1 + dice(4)]);
    before := expected(s, of, '{}', NULL, NULL, 'recorded');
    was := es_execute(s, 'decide(jsonb, jsonb)', jsonb_build_object('events', (SELECT coalesce(jsonb_agg(jsonb_build_object('type', (ARRAY['a', 'b', 'c', 'gone'])[1 + dice(4)], 'data', random_data())), '[]') FROM generate_series(1, n))),
                      (of || '(jsonb, es_recorded_event)')::regprocedure, jsonb_build_object('command_id', id), CASE WHEN dice(2) = 0 THEN before.version::es_expected_version ELSE 'any' END);
    SELECT before.version + n, (SELECT position FROM es_load(s) WHERE version = before.version + n AND n > 0), (expected(s, of, '{}', NULL, NULL, 'recorded')).state, n INTO should;
    RAISE DEBUG 'es_execute(%, %, %) = %', s, of, n, was;
    IF was IS DISTINCT FROM should THEN
        RAISE EXCEPTION 'es_execute(%, %, %): % should be %', s, of, n, was, should USING ERRCODE = 'XX999';
    ELSIF n > 0 AND (SELECT data->>'saw' FROM es_load(s, before.version, 1)) IS DISTINCT FROM md5(coalesce(before.state::text, 'null')) THEN
        RAISE EXCEPTION 'es_execute(%, %, %): it has not seen %', s, of, n, before USING ERRCODE = 'XX999';
    END IF;
    IF id IS NOT NULL AND n > 0 THEN
        INSERT INTO commands VALUES (id, s, was.version, was.position, n);
    END IF;
    PERFORM note('commands');
END $$;
CREATE FUNCTION do_execute_again() RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    of CONSTANT text := random_reducer();
    c commands;
    was record;
    should record;
BEGIN
    SELECT * INTO c FROM commands ORDER BY random() LIMIT 1;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    was := es_execute(c.stream, 'decide(jsonb, jsonb)', '{"events": [{"type": "a"}]}', (of || '(jsonb, es_recorded_event)')::regprocedure, jsonb_build_object('command_id', c.id), dice(5));
    SELECT c.version, c.position, (expected(c.stream, of, '{}', c.version, NULL, 'recorded')).state, c.events INTO should;
    IF was IS DISTINCT FROM should THEN
        RAISE EXCEPTION 'es_execute(%, %) again: % should be %', c.stream, of, was, should USING ERRCODE = 'XX999';
    END IF;
    PERFORM note('commands again');
END $$;

CREATE FUNCTION do_something() RETURNS void LANGUAGE plpgsql AS $$
DECLARE d CONSTANT int := dice(100);
BEGIN
    IF d < 10 THEN PERFORM do_append();
    ELSIF d < 70 THEN PERFORM do_state();
    ELSIF d < 80 THEN PERFORM do_execute();
    ELSIF d < 84 THEN PERFORM do_execute_again();
    ELSIF d < 86 THEN PERFORM do_history();
    ELSIF d < 91 THEN PERFORM do_snapshot();
    ELSIF d < 93 THEN
        PERFORM define(name, 1 + dice(3), dice(2) = 0) FROM reducers WHERE factor > 0 ORDER BY random() LIMIT 1;
        PERFORM note('definitions');
    ELSIF d < 94 THEN
        DELETE FROM es_snapshots WHERE dice(3) = 0;
        PERFORM note('deletes');
    ELSE
        -- All this is undone, also in the model.
        BEGIN
            FOR i IN 0 .. dice(5) LOOP
                PERFORM do_something();
            END LOOP;
            RAISE EXCEPTION 'back' USING ERRCODE = 'BACK0';
        EXCEPTION WHEN SQLSTATE 'BACK0' THEN
            PERFORM note('rollbacks');
        END;
    END IF;
END $$;

-- Several steps a transaction, some of which are rolled back as a whole.
CREATE PROCEDURE run(steps int) LANGUAGE plpgsql AS $$
BEGIN
    FOR i IN 1 .. steps LOOP
        PERFORM do_something();
        IF dice(12) = 0 THEN
            COMMIT;
        ELSIF dice(40) = 0 THEN
            ROLLBACK;
        END IF;
    END LOOP;
    COMMIT;
END $$;

\if :{?seed}
\else
    \set seed 0.42
\endif
SELECT setseed(:seed) \g /dev/null
CALL run(3000);

-- All of it happened, and snapshots were there to be used.
SELECT what FROM counts WHERE n > 5 ORDER BY what COLLATE "C";
SELECT count(DISTINCT fingerprint) > 1 AS fingerprints, count(*) > 5 AS many, count(*) < 1000 AS few FROM es_snapshots;
-- At the end each snapshot that fits is right: with all of them, and with none.
SET eventstore.snapshot_every = 0;
SELECT s, name, initial, v FROM generate_series(0, 15) n, concat('s-', n) s, reducers, unnest(ARRAY['{}', NULL, '{"a": 2}']::jsonb[]) initial, generate_series(0, es_stream_version(s), 17) v
 WHERE es_state(s, (name || '(jsonb, es_recorded_event)')::regprocedure, initial, v) IS DISTINCT FROM expected(s, name, initial, v, NULL, NULL);

SET client_min_messages = warning;
DROP EXTENSION eventstore CASCADE;
DROP SCHEMA app CASCADE;
DROP PROCEDURE run;
DROP FUNCTION note, dice, define, expected, random_data, random_time, random_reducer, random_stream, do_append, do_state, do_snapshot, do_history, decide, do_execute, do_execute_again, do_something;
DROP TABLE counts, commands, reducers;
