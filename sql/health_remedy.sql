-- How remedies of the view es_health are found: whether the cause of an error lies outside, and
-- which statement gives a role, or code that has moved, what it lacks.

-- Returns true if the cause of an error lies outside of the event or message
-- (src/failure/failure.c).  A cancel is that of a handler that did not end.
CREATE FUNCTION es_health_external(sqlstate text) RETURNS boolean LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN (pg_catalog.substr(sqlstate, 1, 2) IN ('08', '3D', '3F', '40', '42', '53', '57', '58') AND sqlstate <> '57014') OR sqlstate IN ('55P03', '55006');

-- The schemas of a search_path that is kept, in which a mark stands for that of the
-- extension (src/base/run_as.c).  The mark is made of two parts, as the server would
-- replace it here.
CREATE FUNCTION es_health_path(path text)
    RETURNS TABLE (n bigint, schema text) LANGUAGE sql STABLE PARALLEL SAFE
BEGIN ATOMIC
    SELECT m.ordinality,
           CASE WHEN m.part[2] = '@' || 'extschema@' THEN
                    (SELECT e.nspname::text FROM pg_class c JOIN pg_namespace e ON e.oid = c.relnamespace WHERE c.oid = 'es_events'::regclass::oid)
                ELSE coalesce(pg_catalog.replace(m.part[1], '""', '"'), pg_catalog.lower(m.part[2])) END
      FROM pg_catalog.regexp_matches(path, '"((?:[^"]|"")+)"|([^",[:space:]]+)', 'g') WITH ORDINALITY m (part, ordinality);
END;

-- The statement that grants what a role lacks, by the error that it got: "permission
-- denied for table x", or a name that is not found because its schema is closed to the
-- role.  The object is one of the tables, else the first of this name in the path,
-- else the only one.  On a table these are the privileges that the words of the
-- statement ask for, which the context has or the query is; else all.  Null: unknown, or
-- nothing is lacking any more.
CREATE FUNCTION es_health_grant(
    role oid, path text, tables oid[], message text, context text, query text,
    OUT remedy text, OUT remedy_by text)
    LANGUAGE sql STABLE PARALLEL SAFE
BEGIN ATOMIC
    WITH said AS MATERIALIZED (
        SELECT pg_catalog.regexp_match(message,
                   '^permission denied for (table|view|materialized view|foreign table|sequence|schema|function|procedure) (?:[^"(]*\.)?"?([^"(.]+)') AS part,
               pg_catalog.regexp_match(message, 'does not exist') IS NOT NULL AS missing,
               pg_catalog.regexp_match(context, '^[^\n]* at RAISE(\n|$)') IS NOT NULL AS raised,
               coalesce((pg_catalog.regexp_match(context, 'SQL statement "(.*?)"(?:\n|$)'))[1], query) AS statement,
               (SELECT r.rolname FROM pg_roles r WHERE r.oid = role) AS rolname),
    element AS MATERIALIZED (
        SELECT s.n, e.oid, e.nspname, e.nspowner
          FROM said
         CROSS JOIN LATERAL es_health_path(path) s
          JOIN pg_namespace e ON e.nspname = s.schema),
    relation AS (
        SELECT c.oid, c.relnamespace, c.relowner AS owner, CASE WHEN c.relkind = 'S' THEN 'SEQUENCE' ELSE 'TABLE' END AS kind,
               (SELECT pg_catalog.array_agg(v.verb)
                  FROM pg_catalog.unnest(CASE WHEN c.relkind = 'S' THEN '{USAGE}'::text[]
                                              ELSE '{SELECT,INSERT,UPDATE,DELETE}'::text[] END) v (verb)
                 WHERE (c.relkind = 'S' OR said.statement IS NULL
                        OR pg_catalog.regexp_match(said.statement, '\m' || CASE WHEN v.verb = 'SELECT' THEN '(select|where|conflict|returning)' ELSE v.verb END || '\M', 'i') IS NOT NULL)
                   AND NOT CASE WHEN c.relkind = 'S' THEN pg_catalog.has_sequence_privilege(role, c.oid, v.verb)
                                ELSE pg_catalog.has_table_privilege(role, c.oid, v.verb) END) AS lacks
          FROM said
          JOIN pg_class c ON c.relname = said.part[2] AND c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S')),
    candidate AS (
        SELECT r.owner,
               CASE WHEN r.oid = ANY (tables) THEN 0::bigint ELSE coalesce(e.n, 1000::bigint) END AS rank,
               pg_catalog.format('GRANT %s ON %s %s TO %I', pg_catalog.array_to_string(r.lacks, ', '), r.kind, r.oid::regclass, said.rolname) AS statement
          FROM said
         CROSS JOIN relation r
          LEFT JOIN element e ON e.oid = r.relnamespace
         WHERE said.part[1] NOT IN ('schema', 'function', 'procedure') AND r.lacks IS NOT NULL
        UNION ALL
        SELECT s.nspowner, 0, pg_catalog.format('GRANT USAGE ON SCHEMA %I TO %I', s.nspname, said.rolname)
          FROM said
          JOIN pg_namespace s ON s.nspname = said.part[2]
         WHERE said.part[1] = 'schema' AND NOT pg_catalog.has_schema_privilege(role, s.oid, 'USAGE')
        UNION ALL
        SELECT p.proowner, coalesce(e.n, 1000::bigint),
               pg_catalog.format('GRANT EXECUTE ON ROUTINE %s TO %I', p.oid::regprocedure, said.rolname)
          FROM said
          JOIN pg_proc p ON p.proname = said.part[2]
          LEFT JOIN element e ON e.oid = p.pronamespace
         WHERE said.part[1] IN ('function', 'procedure') AND NOT pg_catalog.has_function_privilege(role, p.oid, 'EXECUTE')
        UNION ALL
        SELECT e.nspowner, e.n, pg_catalog.format('GRANT USAGE ON SCHEMA %I TO %I', e.nspname, said.rolname)
          FROM said
         CROSS JOIN element e
         WHERE said.part IS NULL AND said.missing AND NOT pg_catalog.has_schema_privilege(role, e.oid, 'USAGE')),
    ranked AS (
        SELECT c.owner, c.statement, c.rank, count(*) OVER (PARTITION BY c.rank) AS as_many
          FROM candidate c
         ORDER BY c.rank LIMIT 1)
    SELECT r.statement, pg_catalog.pg_get_userbyid(r.owner)::text FROM ranked r CROSS JOIN said WHERE r.as_many = 1 AND NOT said.raised;
END;

-- What gives a definition the search_path and the settings again that it has, as the
-- beginning of a list of what is selected.  A schema of the path that is gone is
-- replaced.  Settings that only a superuser may set are left out.
CREATE FUNCTION es_health_settings(path text, settings text[], gone text, instead text)
    RETURNS text LANGUAGE sql STABLE PARALLEL SAFE
RETURN (
    SELECT pg_catalog.string_agg(pg_catalog.format('set_config(%L, %L, true), ', v.name, v.value), '' ORDER BY v.name)
      FROM (SELECT 'search_path' AS name,
                   (SELECT pg_catalog.string_agg(pg_catalog.quote_ident(CASE WHEN s.schema = gone THEN instead ELSE s.schema END), ', ' ORDER BY s.n)
                      FROM es_health_path(path) s) AS value
            UNION ALL
            SELECT g.name, pg_catalog.substr(u.setting, pg_catalog.length(g.name) + 2)
              FROM pg_catalog.unnest(settings) u (setting)
              JOIN pg_settings g ON g.name = pg_catalog.split_part(u.setting, '=', 1) AND g.context = 'user') v);

-- The statement that lets a role call a function that has moved to a schema.  Null:
-- nothing is lacking.
CREATE FUNCTION es_health_reach(role oid, schema text, function oid, OUT lacks text, OUT remedy text, OUT remedy_by text)
    LANGUAGE sql STABLE PARALLEL SAFE
BEGIN ATOMIC
    SELECT pg_catalog.format('%s on %s %s', x.verb, pg_catalog.lower(x.kind), x.name),
           pg_catalog.format('GRANT %s ON %s %s TO %I', x.verb, x.kind, x.name, r.rolname), pg_catalog.pg_get_userbyid(x.owner)::text
      FROM (SELECT 1 AS n, 'USAGE' AS verb, 'SCHEMA' AS kind, pg_catalog.quote_ident(n.nspname::text) AS name, n.nspowner AS owner
              FROM pg_namespace n
             WHERE n.nspname = schema AND NOT pg_catalog.has_schema_privilege(role, n.oid, 'USAGE')
            UNION ALL
            SELECT 2, 'EXECUTE', 'FUNCTION', p.oid::regprocedure::text, p.proowner
              FROM pg_proc p
             WHERE p.oid = function AND NOT pg_catalog.has_function_privilege(role, p.oid, 'EXECUTE')) x
     CROSS JOIN pg_roles r
     WHERE r.oid = role
     ORDER BY x.n LIMIT 1;
END;

REVOKE EXECUTE ON FUNCTION
    es_health_external(text), es_health_path(text), es_health_grant(oid, text, oid[], text, text, text),
    es_health_settings(text, text[], text, text), es_health_reach(oid, text, oid) FROM PUBLIC;

COMMENT ON FUNCTION es_health_external(text) IS 'part of es_health: whether an error''s cause lies outside of the event';
COMMENT ON FUNCTION es_health_path(text) IS 'part of es_health: the schemas of a search_path';
COMMENT ON FUNCTION es_health_grant(oid, text, oid[], text, text, text) IS 'part of es_health: the GRANT that an error asks for';
COMMENT ON FUNCTION es_health_settings(text, text[], text, text) IS 'part of es_health: the search_path and settings of a definition';
COMMENT ON FUNCTION es_health_reach(oid, text, oid) IS 'part of es_health: the GRANT that code which has moved needs';
