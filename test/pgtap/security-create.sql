-- CREATE EXTENSION in a schema that another role has prepared: nothing that is
-- there is replaced, taken over or called. For every operator and function of
-- pg_catalog's that could be meant there is one that fits other types better.
BEGIN;
SELECT plan(7);

CREATE ROLE es_test_attacker;
DROP EXTENSION eventstore CASCADE;
CREATE SCHEMA es_test_trap AUTHORIZATION es_test_attacker;
GRANT USAGE, CREATE ON SCHEMA es_test_trap TO PUBLIC;
CREATE TABLE es_test_trap.called (by name, what text);
GRANT INSERT ON es_test_trap.called TO PUBLIC;

CREATE TEMP TABLE types AS
SELECT oid AS type, format_type(oid, NULL) AS name
  FROM pg_type
 WHERE oid IN ('boolean'::regtype, 'smallint'::regtype, 'integer'::regtype, 'bigint'::regtype, 'numeric'::regtype, 'real'::regtype,
               'double precision'::regtype, 'text'::regtype, 'name'::regtype, 'character varying'::regtype, 'oid'::regtype, 'regclass'::regtype,
               'regproc'::regtype, 'timestamptz'::regtype, 'timestamp'::regtype, 'date'::regtype, 'interval'::regtype, 'jsonb'::regtype, 'json'::regtype,
               'uuid'::regtype, 'xid8'::regtype, 'bigint[]'::regtype, 'text[]'::regtype, 'integer[]'::regtype, 'aclitem[]'::regtype, '"char"'::regtype);
GRANT SELECT ON types TO PUBLIC;

SET LOCAL ROLE es_test_attacker;
SET LOCAL check_function_bodies = off;
CREATE FUNCTION pg_temp.trap(result text, what text) RETURNS text LANGUAGE sql AS $$
    SELECT format('RETURNS %s LANGUAGE sql AS %L', result,
                  format('INSERT INTO es_test_trap.called VALUES (current_user, %L); SELECT NULL::%s', what, result)) $$;
-- Operators on two types for which pg_catalog has none
DO $$
DECLARE o record;
BEGIN
    FOR o IN SELECT n.name, l.name AS l, r.name AS r,
                    CASE WHEN n.name IN ('=', '<>', '<', '>', '<=', '>=', '~~', '~') THEN 'boolean' ELSE l.name END AS result,
                    'op_' || row_number() OVER () AS f
               FROM unnest('{=,<>,<,>,<=,>=,+,-,*,/,%,||}'::text[]) n (name), types l, types r
              WHERE NOT EXISTS (SELECT FROM pg_operator p
                                 WHERE p.oprname = n.name AND p.oprleft = l.type AND p.oprright = r.type)
    LOOP
        EXECUTE format('CREATE FUNCTION es_test_trap.%I(%s, %s) %s', o.f, o.l, o.r, pg_temp.trap(o.result, o.l || o.name || o.r));
        EXECUTE format('CREATE OPERATOR es_test_trap.%s (LEFTARG = %s, RIGHTARG = %s, FUNCTION = es_test_trap.%I)', o.name, o.l, o.r, o.f);
    END LOOP;
    -- Functions of one argument, of a type that pg_catalog's do not have
    FOR o IN SELECT DISTINCT p.proname, t.name
               FROM pg_proc p, types t
              WHERE p.pronamespace = 'pg_catalog'::regnamespace
                AND p.proname IN ('max', 'min', 'sum', 'count', 'cardinality', 'to_timestamp', 'extract', 'date_part', 'hashtext', 'coalesce', 'unnest',
                                  'quote_ident', 'format', 'aclexplode', 'num_nulls', 'num_nonnulls', 'abs', 'round', 'length', 'lower', 'nextval')
                AND NOT EXISTS (SELECT FROM pg_proc q
                                 WHERE q.pronamespace = p.pronamespace AND q.proname = p.proname AND q.proargtypes[0] = t.type AND q.pronargs = 1)
    LOOP
        EXECUTE format('CREATE FUNCTION es_test_trap.%I(%s) %s', o.proname, o.name, pg_temp.trap(o.name, o.proname || ' ' || o.name));
    END LOOP;
END $$;
-- Those of more arguments
CREATE FUNCTION es_test_trap.make_interval(secs numeric) RETURNS interval LANGUAGE sql AS 'SELECT NULL::interval';
CREATE FUNCTION es_test_trap.make_interval(secs bigint) RETURNS interval LANGUAGE sql AS 'SELECT NULL::interval';
CREATE FUNCTION es_test_trap.date_part(text, numeric) RETURNS numeric LANGUAGE sql AS 'SELECT NULL::numeric';
CREATE FUNCTION es_test_trap.num_nonnulls(text, text, text, regclass) RETURNS int LANGUAGE sql AS 'SELECT NULL::int';
CREATE FUNCTION es_test_trap.num_nonnulls(text, text, text) RETURNS int LANGUAGE sql AS 'SELECT NULL::int';
CREATE FUNCTION es_test_trap.num_nonnulls(uuid, bigint, text, text) RETURNS int LANGUAGE sql AS 'SELECT NULL::int';
CREATE FUNCTION es_test_trap.num_nonnulls(text, text, text, jsonb, text, name, text) RETURNS int LANGUAGE sql AS 'SELECT NULL::int';
CREATE FUNCTION es_test_trap.num_nulls(uuid, bigint, text, text) RETURNS int LANGUAGE sql AS 'SELECT NULL::int';
CREATE FUNCTION es_test_trap.num_nulls(text, text, text, jsonb, text, name, text) RETURNS int LANGUAGE sql AS 'SELECT NULL::int';
CREATE FUNCTION es_test_trap.es_category(name) RETURNS text LANGUAGE sql AS 'SELECT NULL::text';
CREATE FUNCTION es_test_trap.es_category(character varying) RETURNS text LANGUAGE sql AS 'SELECT NULL::text';
CREATE FUNCTION es_test_trap.es_partition(text, int) RETURNS int LANGUAGE sql AS 'SELECT NULL::int';
CREATE FUNCTION es_test_trap.es_horizon(int DEFAULT 0) RETURNS bigint LANGUAGE sql AS 'SELECT NULL::bigint';
CREATE FUNCTION es_test_trap.pg_extension_config_dump(text, text) RETURNS void LANGUAGE sql AS 'SELECT 1 / 0';
CREATE TYPE es_test_trap.jsonb AS (a int);
CREATE DOMAIN es_test_trap.bigint AS text;
RESET ROLE;
SELECT cmp_ok((SELECT count(*) FROM pg_proc WHERE pronamespace = 'es_test_trap'::regnamespace), '>', 3000::bigint, 'the trap is set');

CREATE TEMP TABLE before AS
SELECT oid, proname, prosrc FROM pg_proc WHERE pronamespace = 'es_test_trap'::regnamespace;
DROP FUNCTION es_test_trap.es_horizon(int);
SELECT lives_ok('CREATE EXTENSION eventstore SCHEMA es_test_trap', 'the extension is created there');
SELECT is_empty('SELECT * FROM es_test_trap.called', 'nothing of it was called');

CREATE TEMP VIEW members AS
SELECT classid, objid
  FROM pg_depend
 WHERE deptype = 'e'
   AND refobjid = (SELECT oid FROM pg_extension WHERE extname = 'eventstore');
SELECT is_empty(
    $$ SELECT pg_describe_object(m.classid, m.objid, 0) FROM members m
        WHERE (m.classid, m.objid) IN (SELECT 'pg_proc'::regclass, oid FROM before) $$,
    'nothing that was there is a member now');
-- What members, their columns' defaults, constraints, indexes and rules are made of
SELECT is_empty(
    $$ WITH RECURSIVE parts (classid, objid) AS (
           SELECT classid, objid FROM members
           UNION
           SELECT d.classid, d.objid
             FROM parts p
             JOIN pg_depend d ON d.refclassid = p.classid AND d.refobjid = p.objid AND d.deptype IN ('a', 'i'))
       SELECT pg_describe_object(d.classid, d.objid, d.objsubid), pg_describe_object(d.refclassid, d.refobjid, d.refobjsubid)
         FROM parts p
         JOIN pg_depend d ON d.classid = p.classid AND d.objid = p.objid
        WHERE d.refclassid IN ('pg_proc'::regclass, 'pg_operator'::regclass, 'pg_type'::regclass, 'pg_class'::regclass, 'pg_cast'::regclass)
          AND d.deptype = 'n'
          AND (SELECT schema FROM pg_identify_object(d.refclassid, d.refobjid, 0)) <> 'pg_catalog'
          AND NOT EXISTS (SELECT FROM parts m WHERE m.classid = d.refclassid AND m.objid = d.refobjid) $$,
    'no member calls what is not a member, or pg_catalog''s');

-- A function that is there before is no member's: the script replaces nothing.
DROP EXTENSION eventstore CASCADE;
SET LOCAL ROLE es_test_attacker;
CREATE FUNCTION es_test_trap.es_horizon() RETURNS bigint LANGUAGE sql AS 'SELECT 1::bigint';
RESET ROLE;
SELECT throws_ok('CREATE EXTENSION eventstore SCHEMA es_test_trap', '42723', NULL, 'a function of our name stops it');
DROP FUNCTION es_test_trap.es_horizon();
SET LOCAL ROLE es_test_attacker;
SELECT throws_ok('CREATE EXTENSION eventstore SCHEMA es_test_trap', '42501', NULL, 'only a superuser creates it');
RESET ROLE;

SELECT * FROM finish();
ROLLBACK;
