-- Sync projections: part of each append, by a trigger; rules over many
-- streams; changing the mode.
CREATE EXTENSION eventstore;
CREATE TABLE seen (n int GENERATED ALWAYS AS IDENTITY, who text, position bigint, what text);
CREATE FUNCTION note(event es_recorded_event) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO seen (who, position, what) VALUES ('handler', event.position, event.stream || ' ' || event.version || ' ' || event.type);
END $$;
-- What was seen since the last look.
CREATE FUNCTION look() RETURNS TABLE (who text, "position" bigint, what text) LANGUAGE sql
BEGIN ATOMIC
    WITH gone AS (DELETE FROM seen RETURNING *)
    SELECT g.who, g.position, g.what FROM gone g ORDER BY n;
END;

--
-- One trigger each, which every append fires
--
SELECT es_create_projection('handler', 'note(es_recorded_event)', mode => 'sync');
SELECT es_create_projection('A "query" ''', query => $$
    INSERT INTO seen (who, position, what)
    SELECT 'query', max(position), string_agg(stream || ' ' || version, ', ' ORDER BY position) FROM new_events $$, mode => 'sync');
SELECT tgname, tgenabled, pg_get_triggerdef(oid) FROM pg_trigger WHERE tgfoid = 'es_projection_sync'::regproc ORDER BY tgname;
SELECT es_append('a-1', 'none', 'x', id => '00000000-0000-7000-8000-000000000001');
SELECT * FROM look();
SELECT es_append_batch('a-1', 1, '[{"type": "y"}, {"type": "z"}]');
SELECT * FROM look();
SELECT es_append_batch('a-1', 3, '{v,w}', '{1,2}', NULL, '{00000000-0000-7000-8000-000000000002,00000000-0000-7000-8000-000000000003}');
SELECT * FROM look();
INSERT INTO es_import (stream, type) VALUES ('a-1', 'i'), ('b-1', 'j');
COPY es_import (stream, type) FROM stdin;
c-1	k
c-1	l
\.
SELECT * FROM look();
-- In the same statement it is seen by what follows.
SELECT (es_append('a-2', 'none', 'x')).version, (SELECT count(*) FROM seen) AS before;
SELECT * FROM look();
-- A retry stores nothing, nor does an empty batch or one that is refused.
SELECT version FROM es_append('a-1', 'none', 'x', id => '00000000-0000-7000-8000-000000000001');
SELECT version FROM es_append_batch('a-1', 3, '{v,w}', '{1,2}', NULL, '{00000000-0000-7000-8000-000000000002,00000000-0000-7000-8000-000000000003}');
SELECT version FROM es_append_batch('a-1', 'any', '[]');
INSERT INTO es_import (stream, type, id) VALUES ('a-1', 'x', '00000000-0000-7000-8000-000000000001');
SELECT es_append('a-1', 'none', 'x');
SELECT * FROM look();
-- It is gone with its append.
BEGIN;
SELECT version FROM es_append('a-3', 'none', 'x');
SAVEPOINT s;
SELECT version FROM es_append('a-4', 'none', 'x');
ROLLBACK TO s;
SELECT version FROM es_append('a-5', 'none', 'x');
SELECT who, what FROM seen ORDER BY n;
ROLLBACK;
SELECT * FROM look();
-- It is up to date without a row of its own to update.
SELECT es_append('a-6', 'none', 'x') IS NOT NULL;
SELECT name, mode, state, position = horizon AS at_horizon, lag_events, lag_seconds FROM es_projection_status ORDER BY name;
SELECT es_run_projections(), es_run_projections('handler');
SELECT who, what FROM look();
-- A large import is handed over in several statements, each event once.
INSERT INTO es_import (stream, type) SELECT 'large-' || i % 10, 't' FROM generate_series(1, 5000) i;
SELECT count(*), count(DISTINCT position) FROM look() WHERE who = 'handler';

-- Whatever the session sets for triggers.
SET session_replication_role = replica;
SELECT version FROM es_append('a-7', 'none', 'x');
SET session_replication_role = local;
SELECT version FROM es_append('a-7', 'any', 'x');
RESET session_replication_role;
SELECT who, what FROM look();
-- What a restore inserts is no append.
INSERT INTO es_events SELECT position + 100000, version, next_xid, recorded_at, occurred_at, es_uuid7(), 'restored', type, data, metadata
  FROM es_events WHERE stream = 'a-6';
SELECT count(*) FROM es_events WHERE stream = 'restored';
SELECT who, what FROM look();
SELECT es_drop_projection(name) FROM es_projections;
SELECT count(*) FROM pg_trigger WHERE tgfoid = 'es_projection_sync'::regproc AND tgenabled <> 'D';
SELECT version FROM es_append('a-8', 'none', 'x');
SELECT who, what FROM look();
DROP EXTENSION eventstore CASCADE;
CREATE EXTENSION eventstore;
CREATE FUNCTION note(event es_recorded_event) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO seen (who, position, what) VALUES ('handler', event.position, event.stream || ' ' || event.version || ' ' || event.type);
END $$;

--
-- Filters come before the handler
--
CREATE FUNCTION only_good(event es_recorded_event) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF event.stream NOT LIKE 'good-%' OR event.type <> 'good' THEN
        RAISE EXCEPTION 'called for % of %', event.type, event.stream;
    END IF;
    PERFORM note(event);
END $$;
SELECT es_create_projection('only', 'only_good(es_recorded_event)', category => 'good', types => '{good}', mode => 'sync');
SELECT es_create_projection('only query', query => $$
    INSERT INTO seen (who, what) SELECT 'query', 1 / (type <> 'bad')::int FROM new_events $$, types => '{good,other}', mode => 'sync');
SELECT version FROM es_append('good', 'none', 'bad');
SELECT version FROM es_append('goods-1', 'none', 'bad');
SELECT version FROM es_append('GOOD-1', 'none', 'bad');
SELECT version FROM es_append('bad-1', 'none', 'bad');
SELECT who, what FROM look();
SELECT version FROM es_append_batch('good-1', 'none', '[{"type": "bad"}, {"type": "good"}, {"type": "go"}, {"type": "good"}, {"type": "Good"}]');
INSERT INTO es_import (stream, type) VALUES ('good-1', 'bad'), ('bad-1', 'bad'), ('good-2', 'good'), ('good-2', 'x');
SELECT who, what FROM look();
SELECT es_drop_projection(name) FROM es_projections;

--
-- They fire in the order of their names
--
CREATE FUNCTION note_as(who text) RETURNS text LANGUAGE sql AS $$ INSERT INTO seen (who) VALUES (who) RETURNING who $$;
SELECT es_create_projection(name, query => format('SELECT note_as(%L) FROM new_events', name), mode => 'sync', start_position => NULL)
  FROM unnest('{b,a,"",c,B,10,9}'::text[]) name WHERE name <> '';
SELECT es_append('o-1', 'none', 'x') IS NOT NULL;
SELECT string_agg(who, ' ') FROM look();
SELECT es_drop_projection(name) FROM es_projections;

--
-- Rules over many streams: the constraint's error is the append's
--
CREATE TABLE user_email (email text PRIMARY KEY, stream text NOT NULL);
SELECT es_create_projection('user_email', mode => 'sync', category => 'user', types => '{registered}', tables => '{user_email}',
    query => 'INSERT INTO user_email SELECT data->>''email'', stream FROM new_events');
SELECT es_append('user-1', 'none', 'registered', '{"email": "ann@example.org"}') IS NOT NULL;
SELECT es_append('user-2', 'none', 'registered', '{"email": "ann@example.org"}', id => '00000000-0000-0000-0000-000000000001');
\set VERBOSITY sqlstate
SELECT es_append('user-2', 'none', 'registered', '{"email": "ann@example.org"}');
SELECT es_append_batch('user-2', 'none', '[{"type": "opened"}, {"type": "registered", "data": {"email": "bob@example.org"}}, {"type": "registered"}]');
INSERT INTO es_import (stream, type, data) VALUES ('user-2', 'registered', '{"email": "bob@example.org"}'), ('user-3', 'registered', '{"email": "ann@example.org"}');
\set VERBOSITY default
SELECT es_stream_version('user-2'), es_stream_version('user-3'), (SELECT count(*) FROM user_email);
DO $$
BEGIN
    PERFORM es_append('user-2', 'none', 'registered', '{"email": "ann@example.org"}');
EXCEPTION WHEN unique_violation THEN
    PERFORM es_append('user-2', 'none', 'registered', '{"email": "ann2@example.org"}');
END $$;
SELECT * FROM user_email ORDER BY stream;
-- A limit.
CREATE TABLE seats (flight text PRIMARY KEY, taken int NOT NULL CONSTRAINT enough_seats CHECK (taken <= 2));
CREATE FUNCTION take_seat(event es_recorded_event) RETURNS void LANGUAGE sql AS $$
    INSERT INTO seats VALUES (event.data->>'flight', 1) ON CONFLICT (flight) DO UPDATE SET taken = seats.taken + 1
$$;
SELECT es_create_projection('seats', 'take_seat(es_recorded_event)', mode => 'sync', types => '{booked}', tables => '{seats}');
SELECT es_append('booking-' || i, 'none', 'booked', '{"flight": "ES1"}') IS NOT NULL FROM generate_series(1, 2) i;
SELECT es_append('booking-3', 'none', 'booked', '{"flight": "ES1"}', id => '00000000-0000-0000-0000-000000000002');
SELECT es_append('booking-3', 'none', 'booked', '{"flight": "ES2"}') IS NOT NULL;
SELECT * FROM seats ORDER BY flight;
-- A deferred one fails at the commit, and takes the append with it.
CREATE TABLE name_taken (name text CONSTRAINT one_name UNIQUE DEFERRABLE INITIALLY DEFERRED);
SELECT es_create_projection('name', mode => 'sync', types => '{named}', query => 'INSERT INTO name_taken SELECT data->>''name'' FROM new_events');
SELECT es_append('n-1', 'none', 'named', '{"name": "x"}') IS NOT NULL;
BEGIN;
SELECT es_append('n-2', 'none', 'named', '{"name": "x"}') IS NOT NULL;
COMMIT;
SELECT es_stream_version('n-2');
-- An error of the handler's own.
CREATE FUNCTION refuse(event es_recorded_event) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'not on a Sunday' USING ERRCODE = 'MY001', DETAIL = 'It is Sunday.', HINT = 'Come tomorrow.';
END $$;
SELECT es_create_projection('refuse', 'refuse(es_recorded_event)', mode => 'sync', types => '{refused}');
SELECT es_append('r-1', 'none', 'refused', id => '00000000-0000-0000-0000-000000000003');
\set VERBOSITY sqlstate
SELECT es_append('r-1', 'none', 'refused');
\set VERBOSITY default
SELECT es_stream_version('r-1');
SELECT state, attempts, message FROM es_projections WHERE name = 'refuse';
SELECT es_drop_projection(name) FROM es_projections;

--
-- A handler that appends
--
CREATE FUNCTION answer(event es_recorded_event) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM es_append('answer-' || event.position % 2, 'any', 'answered', jsonb_build_object('to', event.stream));
END $$;
CREATE FUNCTION thank(event es_recorded_event) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO es_import (stream, type) VALUES ('thanks-1', 'thanked'), (event.data->>'to', 'thanked');
END $$;
SELECT es_create_projection('answer', 'answer(es_recorded_event)', mode => 'sync', types => '{asked}');
SELECT es_create_projection('note', 'note(es_recorded_event)', mode => 'sync', start_position => NULL);
SELECT es_create_projection('thank', 'thank(es_recorded_event)', mode => 'sync', types => '{answered}');
SELECT es_append_batch('q-1', 'none', '[{"type": "asked"}, {"type": "x"}, {"type": "asked"}]') IS NOT NULL;
SELECT string_agg(what, ', ' ORDER BY what COLLATE "C") FROM look();
SELECT stream, count(*), max(version) = count(*) AS gapless FROM es_events
 WHERE es_category(stream) IN ('q', 'answer', 'thanks') GROUP BY stream ORDER BY stream;
-- Within the handler the append's own event is there already.
CREATE FUNCTION next(event es_recorded_event) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF event.version < 5 THEN
        PERFORM es_append(event.stream, event.version, 'counted');
    END IF;
END $$;
SELECT es_create_projection('next', 'next(es_recorded_event)', mode => 'sync', types => '{counted}');
SELECT es_append('count-1', 'none', 'counted');
SELECT es_stream_version('count-1');
SELECT string_agg(what, ', ' ORDER BY what COLLATE "C") FROM look();
-- One without end is ended.
CREATE FUNCTION endless(event es_recorded_event) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM es_append('endless-1', 'any', 'endless');
END $$;
SELECT es_create_projection('endless', 'endless(es_recorded_event)', mode => 'sync', types => '{endless}');
SET max_stack_depth = '200kB';
\set VERBOSITY sqlstate
SELECT es_append('endless-1', 'none', 'endless');
\set VERBOSITY default
RESET max_stack_depth;
SELECT es_stream_version('endless-1');
-- How many positions it has drawn depends on the server.
SELECT setval('es_position', 200);
SELECT es_drop_projection(name) FROM es_projections;
TRUNCATE seen;

--
-- Changing the mode: each event once
--
CREATE FUNCTION counts() RETURNS TABLE (events bigint, handled bigint, wrong bigint) LANGUAGE sql AS $$
    SELECT (SELECT count(*) FROM es_events), (SELECT count(*) FROM seen),
           (SELECT count(*) FROM es_events e FULL JOIN (SELECT position, count(*) AS n FROM seen GROUP BY position) s USING (position)
             WHERE s.n IS DISTINCT FROM 1 OR e.id IS NULL)
$$;
SELECT es_create_projection('p', 'note(es_recorded_event)', batch_size => 3);
SELECT es_run_projections('p', 1);
SELECT es_alter_projection('p', mode => 'sync');
SELECT * FROM counts();
SELECT mode, state, position = (SELECT max(position) FROM es_events) AS at_end FROM es_projections;
SELECT es_append('m-1', 'any', 'sync') IS NOT NULL;
SELECT * FROM counts();
SELECT es_alter_projection('p', mode => 'sync');
SELECT es_alter_projection('p', mode => 'async');
SELECT count(*) FROM pg_trigger WHERE tgfoid = 'es_projection_sync'::regproc AND tgenabled <> 'D';
SELECT es_append('m-1', 'any', 'async') IS NOT NULL;
SELECT events - handled AS left FROM counts();
SELECT es_run_projections();
SELECT * FROM counts();
SELECT es_alter_projection('p', mode => 'async');
-- While it is paused only the word changes.
SELECT es_pause_projection('p');
SELECT es_append('m-1', 'any', 'paused') IS NOT NULL;
SELECT es_alter_projection('p', mode => 'sync');
SELECT mode, state FROM es_projections;
SELECT count(*) FROM pg_trigger WHERE tgfoid = 'es_projection_sync'::regproc AND tgenabled <> 'D';
SELECT es_append('m-1', 'any', 'paused') IS NOT NULL;
SELECT lag_events FROM es_projection_status;
SELECT es_resume_projection('p');
SELECT * FROM counts();
SELECT es_append('m-1', 'any', 'sync') IS NOT NULL;
SELECT * FROM counts();
SELECT es_pause_projection('p');
SELECT es_pause_projection('p');
SELECT count(*) FROM pg_trigger WHERE tgfoid = 'es_projection_sync'::regproc AND tgenabled <> 'D';
SELECT es_append('m-1', 'any', 'paused') IS NOT NULL;
SELECT mode, state, lag_events FROM es_projection_status;
SELECT es_run_projections();
SELECT es_resume_projection('p');
SELECT es_resume_projection('p');
SELECT * FROM counts();
-- All in one transaction, and undone.
BEGIN;
SELECT es_append('m-2', 'any', 'x') IS NOT NULL;
SELECT es_alter_projection('p', mode => 'async');
SELECT es_append('m-2', 'any', 'x') IS NOT NULL;
SELECT events - handled AS left FROM counts();
SELECT es_alter_projection('p', mode => 'sync');
SELECT es_append('m-2', 'any', 'x') IS NOT NULL;
SELECT * FROM counts();
SELECT es_drop_projection('p');
SELECT es_append('m-2', 'any', 'x') IS NOT NULL;
SELECT events - handled AS left FROM counts();
ROLLBACK;
SELECT * FROM counts();
SELECT es_append('m-2', 'any', 'x') IS NOT NULL;
SELECT * FROM counts();
BEGIN;
SAVEPOINT s;
SELECT es_alter_projection('p', mode => 'async');
ROLLBACK TO s;
SELECT es_append('m-2', 'any', 'x') IS NOT NULL;
COMMIT;
SELECT * FROM counts();
-- From within an append: whether it is refused or not, nothing is lost.
CREATE FUNCTION meddle(event es_recorded_event) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE event.data #>> '{}';
END $$;
CREATE FUNCTION try_append(data text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM es_append('m-3', 'any', 'meddle', to_jsonb(data));
EXCEPTION WHEN OTHERS THEN
    NULL;
END $$;
SELECT es_create_projection('meddle', 'meddle(es_recorded_event)', mode => 'sync', types => '{meddle}');
SELECT try_append($$ SELECT es_pause_projection('p') $$);
SELECT es_resume_projection('p');
SELECT wrong FROM counts();
SELECT try_append($$ SELECT es_alter_projection('p', mode => 'async') $$);
SELECT es_alter_projection('p', mode => 'sync');
SELECT wrong FROM counts();
SELECT try_append($$ SELECT es_pause_projection('p'), es_resume_projection('p') $$);
SELECT es_resume_projection('p');
SELECT wrong FROM counts();
SELECT try_append($$ SELECT es_alter_projection('meddle', mode => 'async') $$);
SELECT es_alter_projection('meddle', mode => 'sync');
SELECT try_append($$ SELECT es_drop_projection('meddle') $$);
SELECT wrong FROM counts();
DO $$ BEGIN PERFORM es_drop_projection(name) FROM es_projections WHERE name = 'meddle'; END $$;
-- A projection that cannot catch up stays as it was.
ALTER TABLE seen ADD CONSTRAINT no_worse CHECK (what NOT LIKE '%worse');
SELECT es_alter_projection('p', mode => 'async');
SELECT es_append('m-4', 'any', 'worse') IS NOT NULL, es_append('m-4', 'any', 'good') IS NOT NULL;
\set VERBOSITY terse
SELECT es_alter_projection('p', mode => 'sync');
\set VERBOSITY default
SELECT mode, state, attempts, lag_events FROM es_projection_status;
ALTER TABLE seen DROP CONSTRAINT no_worse;
SELECT es_alter_projection('p', mode => 'sync');
SELECT wrong FROM counts();
-- The log is the same as the read model, whoever appended in which mode.
SELECT count(*) FROM (
    SELECT stream || ' ' || version || ' ' || type, position FROM es_events EXCEPT SELECT what, position FROM seen) missing;

-- Dropping a table, a handler or the projection itself.
DROP FUNCTION note(es_recorded_event);
SELECT es_append('m-5', 'any', 'x', id => '00000000-0000-0000-0000-000000000004');
SELECT es_drop_projection('p');
SELECT es_append('m-5', 'any', 'x') IS NOT NULL;

-- One that drops itself while it catches up leaves no trigger behind.
CREATE FUNCTION leave(event es_recorded_event) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM es_drop_projection(name) FROM es_projections WHERE name = 'leave';
END $$;
DO $$
BEGIN
    PERFORM es_create_projection('leave', 'leave(es_recorded_event)', mode => 'sync');
EXCEPTION WHEN OTHERS THEN  -- it may be refused
    NULL;
END $$;
SELECT count(*) FROM pg_trigger WHERE tgname = 'leave' AND NOT EXISTS (SELECT FROM es_projections WHERE name = 'leave');
SELECT es_append('m-5', 'any', 'x') IS NOT NULL;
SET client_min_messages = warning;
DROP TRIGGER IF EXISTS leave ON es_events;
RESET client_min_messages;

-- The trigger function alone does nothing.
SELECT es_projection_sync();
CREATE TRIGGER mine AFTER INSERT ON es_events FOR EACH ROW EXECUTE FUNCTION es_projection_sync('p');
SELECT es_append('m-6', 'any', 'x');
DROP TRIGGER mine ON es_events;
CREATE TRIGGER mine AFTER INSERT ON es_events REFERENCING NEW TABLE AS new_events FOR EACH STATEMENT EXECUTE FUNCTION es_projection_sync();
SELECT es_append('m-6', 'any', 'x');
DROP TRIGGER mine ON es_events;
CREATE TRIGGER mine AFTER INSERT ON es_events REFERENCING NEW TABLE AS new_events FOR EACH STATEMENT EXECUTE FUNCTION es_projection_sync('nowhere');
SELECT es_append('m-6', 'any', 'x');
DROP TRIGGER mine ON es_events;
CREATE TABLE fake (LIKE es_events);
CREATE TRIGGER mine AFTER INSERT ON fake REFERENCING NEW TABLE AS new_events FOR EACH STATEMENT EXECUTE FUNCTION es_projection_sync('p');
INSERT INTO fake SELECT * FROM es_events LIMIT 1;

SET client_min_messages = warning;
DROP EXTENSION eventstore CASCADE;
DROP FUNCTION look, note_as, counts, try_append;
DROP TABLE seen, user_email, seats, name_taken, fake CASCADE;
