-- Functions as arguments: every form that names one, in every function that takes
-- one, and every error.
CREATE EXTENSION eventstore;

-- The error of a statement: its code, message, detail and hint.
CREATE FUNCTION error_of(statement text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE m text; d text; h text;
BEGIN
    EXECUTE statement;
    RETURN NULL;
EXCEPTION WHEN OTHERS THEN
    GET STACKED DIAGNOSTICS m = MESSAGE_TEXT, d = PG_EXCEPTION_DETAIL, h = PG_EXCEPTION_HINT;
    RETURN concat_ws(E'\n', SQLSTATE || ' ' || m, nullif(d, ''), nullif(h, ''));
END $$;
CREATE FUNCTION code_of(statement text) RETURNS text LANGUAGE sql AS $$ SELECT left(error_of(statement), 5) $$;

CREATE SCHEMA app;
CREATE FUNCTION app.fold(state jsonb, event es_recorded_event) RETURNS jsonb LANGUAGE sql RETURN to_jsonb(event.version);
CREATE FUNCTION app.decide(state jsonb, command jsonb) RETURNS jsonb LANGUAGE sql RETURN jsonb_build_array(jsonb_build_object('type', 'x'));
CREATE FUNCTION app.handle(event es_recorded_event) RETURNS void LANGUAGE sql AS '';
CREATE FUNCTION app.receive(payload text, metadata jsonb) RETURNS es_ack_event LANGUAGE sql RETURN ('e', NULL, NULL, NULL, NULL, NULL, NULL)::es_ack_event;
CREATE FUNCTION app.upcast(data jsonb) RETURNS jsonb LANGUAGE sql RETURN data;
SELECT version FROM es_append_batch('a-1', 'any', array_fill('x'::text, ARRAY[3]), array_fill('{"a": 1}'::jsonb, ARRAY[3]));

--
-- Every form
--
SELECT state FROM es_state('a-1', 'es_merge');
SELECT state FROM es_state('a-1', 'public.es_merge');
SELECT state FROM es_state('a-1', ' Public . ES_Merge ');
SELECT state FROM es_state('a-1', '"public"."es_merge"');
SELECT state FROM es_state('a-1', 'es_merge(jsonb, es_recorded_event)');
SELECT state FROM es_state('a-1', 'es_merge'::text);
SELECT state FROM es_state('a-1', 'es_merge'::varchar);
SELECT state FROM es_state('a-1', 'es_merge'::varchar(8));
SELECT state FROM es_state('a-1', 'es_merge'::name);
SELECT state FROM es_state('a-1', 'es_merge'::char(20));
SELECT (es_state('a-1', p.proname)).state FROM pg_proc p WHERE p.proname = 'es_merge';
SELECT state FROM es_state('a-1', 'public.es_merge(jsonb, es_recorded_event)'::text);
SELECT state FROM es_state('a-1', 'es_merge'::es_function);
SELECT state FROM es_state('a-1', 'es_merge'::regproc);
SELECT state FROM es_state('a-1', 'es_merge(jsonb, es_recorded_event)'::regprocedure);
SELECT state FROM es_state('a-1', 'es_merge'::regproc::oid::text);
SELECT state FROM es_state(reducer => 'es_merge', stream => 'a-1');
-- What comes out of a table, of a function, of an expression.
SELECT f, (es_state('a-1', f)).state FROM unnest('{es_merge,public.es_last,"app.fold(jsonb, es_recorded_event)"}'::text[]) f;
SELECT (es_state('a-1', es_reducer('app'))).state;
SELECT (es_state('a-1', 'es_' || 'last')).state;
SELECT (es_state('a-1', p.oid)).state, (es_state('a-1', p.oid::regprocedure)).state FROM pg_proc p WHERE p.proname = 'fold';

--
-- Every function
--
SELECT DISTINCT p.proname, a.name
  FROM pg_proc p, unnest(p.proargnames, p.proargtypes::oid[]) a (name, type)
 WHERE a.type IN ('es_function'::regtype, 'regproc'::regtype, 'regprocedure'::regtype) AND p.proname ~ '^es_' AND p.proname !~ '^es_function_'
 ORDER BY 1, 2;
-- By name, as text, with the arguments, as regproc and regprocedure.
CREATE TABLE forms (nr int, form text);
INSERT INTO forms VALUES (1, '%L'), (2, '%L::text'), (3, '%L::varchar'), (4, '%L::regproc'), (5, '%L::regproc::regprocedure');
CREATE FUNCTION named(form text, function text) RETURNS text LANGUAGE sql AS $$ SELECT format(form, function) $$;
SELECT nr, code_of(format('SELECT * FROM es_history(%L, %s)', 'a-1', named(form, 'app.fold'))) AS history,
       code_of(format('SELECT es_snapshot(%L, %s)', 'a-1', named(form, 'app.fold'))) AS snapshot,
       code_of(format('SELECT es_execute(%L, %s, %L, %s)', 'b-1', named(form, 'app.decide'), '{}', named(form, 'app.fold'))) AS execute,
       code_of(format('SELECT es_receive(%L, %L, %L, %s)', 't', 'g', nr, named(form, 'app.receive'))) AS receive,
       code_of(format('SELECT es_define_upcaster(%L, %s, %s)', 'x', nr, named(form, 'app.upcast'))) AS upcaster,
       code_of(format('SELECT es_create_projection(%L, %s)', 'p' || nr, named(form, 'app.handle'))) AS projection
  FROM forms ORDER BY nr;
SELECT es_stream_version('b-1'), (SELECT count(*) FROM es_inbox);
-- Stored are signatures, which do not depend on the search_path.
SELECT name, handler FROM es_projections ORDER BY name;
SELECT from_version, upcaster FROM es_upcasters ORDER BY from_version;
SELECT es_run_projections();

--
-- Prepared: a parameter is text, varchar, without a type, or a regproc
--
PREPARE untyped AS SELECT state FROM es_state($1, $2);
PREPARE texts (text, text) AS SELECT state FROM es_state($1, $2);
PREPARE varchars (varchar, varchar) AS SELECT state FROM es_state($1, $2);
PREPARE procs (text, regproc) AS SELECT state FROM es_state($1, $2);
PREPARE execution AS SELECT events FROM es_execute($1, $2, $3, $4);
SELECT name, parameter_types FROM pg_prepared_statements ORDER BY name;
EXECUTE untyped ('a-1', 'app.fold');
EXECUTE texts ('a-1', 'app.fold');
EXECUTE varchars ('a-1', 'app.fold');
EXECUTE procs ('a-1', 'app.fold');
EXECUTE execution ('b-1', 'app.decide', '{}', 'app.fold');
SET plan_cache_mode = force_generic_plan;
EXECUTE untyped ('a-1', 'app.fold');
EXECUTE texts ('a-1', 'es_last');
EXECUTE texts ('a-1', 'app.fold');
RESET plan_cache_mode;
-- Looked up at each call: a function that takes the name is found, by a cached plan, too.
ALTER FUNCTION app.fold(jsonb, es_recorded_event) RENAME TO fold_old;
CREATE FUNCTION app.fold(state jsonb, event es_recorded_event) RETURNS jsonb LANGUAGE sql RETURN '"another"'::jsonb;
EXECUTE texts ('a-1', 'app.fold');
DROP FUNCTION app.fold;
EXECUTE texts ('a-1', 'app.fold');
ALTER FUNCTION app.fold_old RENAME TO fold;
EXECUTE texts ('a-1', 'app.fold');
DEALLOCATE ALL;

--
-- Overloads, search_path
--
CREATE FUNCTION app.many(integer) RETURNS integer LANGUAGE sql RETURN 1;
CREATE FUNCTION app.many(jsonb, jsonb) RETURNS jsonb LANGUAGE sql RETURN '[]'::jsonb;
CREATE FUNCTION app.many(jsonb, es_recorded_event) RETURNS jsonb LANGUAGE sql RETURN '"app"'::jsonb;
CREATE FUNCTION app.many(state jsonb, event es_recorded_event, more int DEFAULT 1) RETURNS jsonb LANGUAGE sql RETURN '"defaults"'::jsonb;
CREATE FUNCTION app.many(state jsonb, VARIADIC events es_recorded_event[]) RETURNS jsonb LANGUAGE sql RETURN '"variadic"'::jsonb;
CREATE FUNCTION app.many(state anyelement, event anynonarray) RETURNS anyelement LANGUAGE sql AS 'SELECT state';
CREATE PROCEDURE app.many(jsonb, es_events) LANGUAGE sql AS '';
SELECT state FROM es_state('a-1', 'app.many');
SELECT state, events FROM es_execute('a-1', 'app.many', '{}', 'app.many');
SELECT code_of($$ SELECT es_state('a-1', 'app.many'::regproc) $$);
-- The first one on the path that fits, whatever stands before it.
CREATE SCHEMA two;
CREATE FUNCTION two.many(jsonb) RETURNS jsonb LANGUAGE sql RETURN '"wrong"'::jsonb;
SET search_path = two, app, public;
SELECT state FROM es_state('a-1', 'many');
CREATE FUNCTION two.many(jsonb, es_recorded_event) RETURNS jsonb LANGUAGE sql RETURN '"two"'::jsonb;
SELECT state FROM es_state('a-1', 'many');
SET search_path = app, two, public;
SELECT state FROM es_state('a-1', 'many');
SET search_path = app;
SELECT public.es_state('a-1', 'es_merge');
RESET search_path;
-- Names that must be quoted.
CREATE FUNCTION app."Fold It" (jsonb, es_recorded_event) RETURNS jsonb LANGUAGE sql RETURN '"quoted"'::jsonb;
CREATE FUNCTION app."a(b"".c" (jsonb, es_recorded_event) RETURNS jsonb LANGUAGE sql RETURN '"odd"'::jsonb;
CREATE FUNCTION app."123" (jsonb, es_recorded_event) RETURNS jsonb LANGUAGE sql RETURN '"digits"'::jsonb;
CREATE FUNCTION app."'; DROP TABLE es_events; --" (jsonb, es_recorded_event) RETURNS jsonb LANGUAGE sql RETURN '"injected"'::jsonb;
SELECT f, (es_state('a-1', f)).state
  FROM unnest(ARRAY['app."Fold It"', 'app."a(b"".c"', 'app."a(b"".c"(jsonb, es_recorded_event)', 'app."123"', $$app."'; DROP TABLE es_events; --"$$]) f;
SELECT code_of('SELECT es_state(''a-1'', ''app.fold it'')') AS not_quoted;
-- A temporary function is found by its schema alone, as everywhere.
CREATE FUNCTION pg_temp.fold_temp(jsonb, es_recorded_event) RETURNS jsonb LANGUAGE sql RETURN '"temp"'::jsonb;
SELECT state FROM es_state('a-1', 'pg_temp.fold_temp');
SELECT code_of($$ SELECT es_state('a-1', 'fold_temp') $$);
DROP FUNCTION pg_temp.fold_temp;

--
-- In a view, in functions
--
CREATE VIEW by_name AS SELECT state FROM es_state('a-1', 'app.fold');
CREATE VIEW by_regproc AS SELECT state FROM es_state('a-1', 'app.fold'::regproc);
SELECT pg_get_viewdef('by_name') ~ '''app\.fold''::es_function' AS name, pg_get_viewdef('by_regproc') ~ '\(''app\.fold''::regproc\)::es_function' AS regproc;
TABLE by_name;
TABLE by_regproc;
CREATE FUNCTION in_sql(stream text, reducer text) RETURNS jsonb LANGUAGE sql STABLE BEGIN ATOMIC SELECT h.state FROM es_history(stream, reducer) h ORDER BY version DESC LIMIT 1; END;
CREATE FUNCTION in_plpgsql(stream text, reducer regproc) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
    RETURN (SELECT s.state FROM es_state(stream, reducer) s);
END $$;
SELECT in_sql('a-1', 'app.fold'), in_plpgsql('a-1', 'app.fold');
-- The regproc is a dependency, and follows a rename.
SELECT error_of('DROP FUNCTION app.fold');
ALTER FUNCTION app.fold RENAME TO renamed;
TABLE by_regproc;
TABLE by_name;
ALTER FUNCTION app.renamed RENAME TO fold;
DROP VIEW by_name, by_regproc;

--
-- The type: a text, shown as a signature where it is an oid
--
SELECT 'es_merge'::es_function, 'es_merge'::text::es_function, 'es_merge'::regproc::es_function, NULL::es_function, 'no such'::es_function;
SELECT 'app.fold'::regproc::es_function, 'app.fold'::regproc::es_function::text;
SELECT convert_from(es_function_send('es_merge'), 'UTF8'), convert_from(es_function_send('es_merge'::regproc), 'UTF8');
SELECT 4294967295::oid::regproc::es_function;
-- Dumped, and restored, it is a name.
CREATE TEMP TABLE stored (f es_function);
INSERT INTO stored VALUES ('es_merge'), ('app.fold'::regproc);
COPY stored TO stdout;
SELECT (es_state('a-1', f)).state FROM stored;

--
-- Errors
--
\pset format unaligned
\pset tuples_only on
CREATE FUNCTION app.wrong(jsonb, text) RETURNS jsonb LANGUAGE sql RETURN $1;
CREATE FUNCTION app.wrongs(jsonb, text) RETURNS jsonb LANGUAGE sql RETURN $1;
CREATE FUNCTION app.wrongs("Day" date) RETURNS date LANGUAGE sql RETURN $1;
CREATE FUNCTION app.returns(jsonb, es_recorded_event) RETURNS text LANGUAGE sql RETURN '';
CREATE FUNCTION app.returns(int) RETURNS text LANGUAGE sql RETURN '';
CREATE FUNCTION app.collect(jsonb, jsonb, es_recorded_event) RETURNS jsonb LANGUAGE sql RETURN $1;
CREATE AGGREGATE app.aggregate(jsonb, es_recorded_event) (sfunc = app.collect, stype = jsonb);
SELECT error_of($$ SELECT es_state('a-1', 'nothing') $$);
SELECT error_of($$ SELECT es_state('a-1', 'app.nothing') $$);
SELECT error_of($$ SELECT es_state('a-1', 'nothing.fold') $$);
SELECT error_of($$ SELECT es_state('a-1', 'fold') $$);
SELECT error_of($$ SELECT es_state('a-1', 'app.fold(jsonb)') $$);
SELECT error_of($$ SELECT es_state('a-1', 'app.fold(jsonb, es_events)') $$);
SELECT code_of($$ SELECT es_state('a-1', 'app.fold(jsonb, nothing)') $$) ~ '^(42704|42883)$';
SELECT error_of($$ SELECT es_state('a-1', 'app.wrong') $$);
SELECT error_of($$ SELECT es_state('a-1', 'app.wrongs') $$);
SELECT error_of($$ SELECT es_state('a-1', 'app.returns') $$);
SELECT error_of($$ SELECT es_state('a-1', 'app.aggregate') $$);
DO $$
BEGIN
    FOR i IN 1..12 LOOP
        EXECUTE format('CREATE TYPE app.t%s AS (a int); CREATE FUNCTION app.dozen(app.t%s) RETURNS jsonb LANGUAGE sql RETURN NULL::jsonb', i, i);
    END LOOP;
END $$;
SELECT error_of($$ SELECT es_state('a-1', 'app.dozen') $$);
SELECT error_of($$ SELECT es_execute('a-1', 'app.fold', '{}', 'app.fold') $$);
SELECT error_of($$ SELECT es_execute('a-1', 'app.decide', '{}', 'app.decide') $$);
SELECT error_of($$ SELECT es_execute('a-1', 'nothing', '{}', 'app.fold') $$);
SELECT error_of($$ SELECT es_receive('t', 'g', 'x', 'app.handle') $$);
SELECT error_of($$ SELECT es_receive('t', 'g', 'x', 'nothing') $$);
SELECT error_of($$ SELECT es_define_upcaster('x', 1, 'app.handle') $$);
SELECT error_of($$ SELECT es_define_upcaster('x', 1, 'nothing') $$);
SELECT error_of($$ SELECT es_create_projection('p', 'app.receive') $$);
SELECT error_of($$ SELECT es_create_projection('p', 'nothing') $$);
-- What is no name.
SELECT error_of($$ SELECT es_state('a-1', '') $$);
SELECT error_of($$ SELECT es_state('a-1', '.') $$);
SELECT error_of($$ SELECT es_state('a-1', 'app.') $$);
SELECT error_of($$ SELECT es_state('a-1', 'app.fold x') $$);
SELECT error_of($$ SELECT es_state('a-1', '"app') $$);
SELECT error_of($$ SELECT es_state('a-1', 'a.b.c.d') $$);
SELECT error_of($$ SELECT es_state('a-1', 'a.b.c') $$);
SELECT error_of($$ SELECT es_state('a-1', 'app.fold(jsonb') $$);
SELECT error_of($$ SELECT es_state('a-1', '99999999999') $$);
SELECT error_of($$ SELECT es_state('a-1', '4294967295') $$);
SELECT error_of($$ SELECT es_state('a-1', 0::regproc) $$);
SELECT code_of($$ SELECT es_state('a-1', repeat('x', 2048)) $$), error_of($$ SELECT es_state('a-1', repeat('"', 1000001)) $$);
SELECT error_of($$ SELECT es_state('a-1', $s$x'); DROP TABLE es_events; --$s$) $$);
-- Nothing at all.
SELECT error_of($$ SELECT es_state('a-1', NULL) $$);
SELECT error_of($$ SELECT es_execute('a-1', NULL::text, '{}', 'app.fold') $$);
-- What was never a function.
SELECT code_of($$ SELECT es_state('a-1', 1) $$), code_of($$ SELECT es_state('a-1', '{}'::jsonb) $$);
\pset format aligned
\pset tuples_only off

-- Privileges: of the function, of its schema.
CREATE ROLE regress_es_functions;
GRANT SELECT ON es_events TO regress_es_functions;
CREATE FUNCTION refused(jsonb, es_recorded_event) RETURNS jsonb LANGUAGE sql RETURN $1;
REVOKE EXECUTE ON FUNCTION refused FROM PUBLIC;
SET ROLE regress_es_functions;
-- It needs no right on the schema of an upcaster.
SELECT state FROM es_state('a-1', 'es_merge');
SELECT f, error_of(format('SELECT es_state(%L, %L)', 'a-1', f)) FROM unnest('{refused,"refused(jsonb, es_recorded_event)",app.fold,app.nothing}'::text[]) f;
RESET ROLE;
DROP OWNED BY regress_es_functions;
DROP ROLE regress_es_functions;

SET client_min_messages = warning;
DROP EXTENSION eventstore CASCADE;
DROP SCHEMA app, two CASCADE;
DROP FUNCTION error_of, code_of, named, in_plpgsql;
DROP TABLE forms, stored;
RESET client_min_messages;
