-- What the drivers' calls find, and the calls that they make: those of cases.json, each as
-- it is, with literals, and with its parameters cast to each type that a driver sends.
SET client_min_messages = warning;
SET TimeZone = 'UTC';
CREATE FUNCTION decide_tagged(state jsonb, command jsonb) RETURNS jsonb LANGUAGE sql
    AS $$ SELECT jsonb_build_array(jsonb_build_object('type', 'decided', 'data', command, 'tags', ARRAY['decided:tag'])) $$;
CREATE FUNCTION decide(state jsonb, command jsonb) RETURNS jsonb LANGUAGE sql
    AS $$ SELECT jsonb_build_array(jsonb_build_object('type', 'decided', 'data', command)) $$;
\ir handlers.sql
SELECT 'CREATE ROLE es_drivers_role' WHERE to_regrole('es_drivers_role') IS NULL \gexec

SELECT es_append('a-1', 'any', 'a', jsonb_build_object('k', n), id => ('00000000-0000-4000-8000-00000000000' || n)::uuid)
  FROM generate_series(1, 4) AS n;
SELECT es_define_event_type('defined', attributes => '{"k": "n"}');
SELECT es_define_event_type('joined', personal => '{name}');
SELECT count(*) FROM es_erase_subject('2');
SELECT es_create_subscription('s', lease => '1 h');
SELECT es_create_subscription('fresh');
SELECT es_poll('s', 'c', 3);
-- A worker must not run them meanwhile.
BEGIN;
SELECT es_create_projection('p', handler => 'handle', tables => '{read_model}');
SELECT es_create_projection('parks', handler => 'handle_fails', on_failure => 'park', max_attempts => 1);
SELECT es_run_projections('parks');
SELECT es_pause_projection('p'), es_pause_projection('parks');
COMMIT;
-- An event with tags and a body, which is read as each driver has them
SELECT es_append('bytes-1', 'none', 'a', id => '00000000-0000-4000-8000-00000000000b', tags => '{b,"with, comma"}', body => '\x00ff5c27');
SELECT es_create_subscription('bytes', category => 'bytes');
SELECT es_receive('t', 'g', 'failed', 'receive_fails', max_retries => 0), es_receive('t', 'g', 'stored', 'receive');

-- A value that begins with = is an expression, of what the database alone knows.
CREATE FUNCTION evaluated(value text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	result text := value;
BEGIN
	IF value LIKE '=%' THEN
		EXECUTE 'SELECT (' || substr(value, 2) || ')::text' INTO result;
	END IF;
	RETURN result;
END $$;
CREATE TABLE cases (nr serial, call text, get text, kinds text[], "values" text[], "is" text);
\set cases `cat "$CASES"`
INSERT INTO cases (call, get, kinds, "values", "is")
SELECT c->>'call', coalesce(c->>'get', 'r'),
       ARRAY(SELECT split_part(v, ':', 1) FROM jsonb_array_elements_text(c->'values') WITH ORDINALITY AS v (v, nr) ORDER BY nr),
       ARRAY(SELECT evaluated(substr(v, strpos(v, ':') + 1)) FROM jsonb_array_elements_text(c->'values') WITH ORDINALITY AS v (v, nr) ORDER BY nr),
       c->>'is'
  FROM jsonb_array_elements((:'cases')::jsonb->'cases') WITH ORDINALITY AS c (c, nr) ORDER BY c.nr;
CREATE TABLE exceptions (function text, why text);
INSERT INTO exceptions SELECT key, value FROM jsonb_each_text((:'cases')::jsonb->'exceptions');

-- The types that a driver may send for a parameter of a kind.
CREATE TABLE sent_as (kind text, type text);
INSERT INTO sent_as
SELECT kind, type FROM unnest('{version,int}'::text[]) AS kind, unnest('{smallint,integer,bigint}'::text[]) AS type
 UNION ALL
SELECT kind, type FROM unnest('{version,text,function}'::text[]) AS kind, unnest('{text,varchar}'::text[]) AS type
 UNION ALL
SELECT 'texts', type FROM unnest('{text[],varchar[]}'::text[]) AS type
 UNION ALL
SELECT 'time', type FROM unnest('{timestamptz,timestamp}'::text[]) AS type;

CREATE FUNCTION fits(value text, type text) RETURNS boolean IMMUTABLE LANGUAGE sql
RETURN value ~ '^\d+$' AND length(value) < CASE type WHEN 'smallint' THEN 5 WHEN 'integer' THEN 10 ELSE 20 END;
CREATE FUNCTION with_parameters(call text, parameters text[]) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	FOR n IN REVERSE cardinality(parameters)..1 LOOP
		call := regexp_replace(call, '\$' || n || '(?!\d)', replace(parameters[n], '\', '\\'), 'g');
	END LOOP;
	RETURN call;
END $$;

CREATE TABLE calls (id serial PRIMARY KEY, nr int, variant text, sql text, kinds text[], "values" text[]);
CREATE FUNCTION natives(kinds text[], "values" text[]) RETURNS text[] STABLE LANGUAGE sql
RETURN ARRAY(SELECT CASE WHEN k IN ('texts', 'jsons', 'uuids', 'times', 'classes', 'byteas') THEN to_jsonb(v::text[])::text ELSE v END
               FROM ROWS FROM (unnest(kinds), unnest("values")) WITH ORDINALITY AS u (k, v, n) ORDER BY n);
INSERT INTO calls (nr, variant, sql, kinds, "values")
SELECT c.nr, t.variant, format(CASE WHEN c.call ~ '^(SELECT|INSERT) ' THEN '%2$s' ELSE 'SELECT (%1$s)::text FROM %2$s AS r' END, c.get, with_parameters(c.call, t.parameters)),
       CASE WHEN t.variant = 'literal' THEN '{}' ELSE c.kinds END, CASE WHEN t.variant = 'literal' THEN '{}' ELSE c."values" END
  FROM cases AS c,
       LATERAL (
          SELECT 'plain', ARRAY(SELECT '$' || n FROM generate_subscripts(c.kinds, 1) AS n ORDER BY n)
           UNION ALL
          SELECT 'literal', ARRAY(SELECT quote_literal(v) FROM unnest(c."values") WITH ORDINALITY AS v (v, n) ORDER BY n)
           UNION ALL
          SELECT s.type, ARRAY(SELECT '$' || n || CASE WHEN EXISTS (SELECT FROM sent_as AS a WHERE (a.kind, a.type) = (k, s.type))
                                                        AND NOT (s.type IN ('smallint', 'integer', 'bigint') AND NOT fits(c."values"[n], s.type)) THEN '::' || s.type ELSE '' END
                                 FROM unnest(c.kinds) WITH ORDINALITY AS k (k, n) ORDER BY n)
            FROM (SELECT DISTINCT type FROM sent_as WHERE kind = ANY (c.kinds)) AS s) AS t (variant, parameters)
 ORDER BY c.nr, 2;

-- What the drivers got; and what is wrong with it.
CREATE TABLE said (driver text, way text, id int, answer text);
-- What only one driver does, and what doc/guide/drivers.md says of it.
CREATE TABLE said_alone (driver text, what text, answer text, "is" text);
CREATE VIEW wrong AS
SELECT s.driver, s.way, c.variant, c.sql, s.answer, e."is"
  FROM said AS s JOIN calls AS c USING (id) JOIN cases AS e USING (nr)
 WHERE s.answer IS DISTINCT FROM e."is"
 UNION ALL
SELECT driver, '', '', what, answer, "is" FROM said_alone WHERE answer IS DISTINCT FROM "is";
-- Functions that are in neither list, and names there that are no functions.
CREATE VIEW uncalled AS
SELECT coalesce(p.proname, l.name) AS name
  FROM (SELECT p.proname::text
          FROM pg_depend AS d JOIN pg_extension AS x ON x.oid = d.refobjid AND x.extname = 'eventstore' JOIN pg_proc AS p ON p.oid = d.objid
         WHERE d.classid = 'pg_proc'::regclass AND d.deptype = 'e' AND p.prorettype <> 'trigger'::regtype
           AND p.proname !~ '^es_(expected_version|function|role|categories)_') AS p
  FULL JOIN (SELECT substring(call FROM '(es_\w+)\(') AS name FROM cases UNION SELECT function FROM exceptions) AS l ON l.name = p.proname
 WHERE p.proname IS NULL OR l.name IS NULL;
