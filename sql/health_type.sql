-- What needs a human, for the view es_health: upcasters.

-- Upcasters that cannot be called, so that no event of their type can be read.
CREATE FUNCTION es_health_types()
    RETURNS TABLE (urgency int, problem text, object text, since timestamptz, message text, remedy text, remedy_by text, owner oid)
    LANGUAGE sql STABLE PARALLEL RESTRICTED
BEGIN ATOMIC
    WITH log AS MATERIALIZED (
        SELECT n.nspname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = 'es_events'::regclass::oid),
    upcaster AS (
        SELECT u.*, u.owner::oid AS role, u.owner::text AS role_name, pg_catalog.to_regprocedure(u.upcaster)::oid AS function,
               n.oid AS schema_oid, n.nspowner, pg_catalog.parse_ident(u.upcaster, false) AS code,
               pg_catalog.format('upcaster of type %L from version %s%s', u.type, u.from_version, ' in category ' || u.category) AS object
          FROM es_upcasters u
          LEFT JOIN pg_proc p ON p.oid = pg_catalog.to_regprocedure(u.upcaster)::oid
          LEFT JOIN pg_namespace n ON n.oid = p.pronamespace),
    elsewhere AS (
        SELECT u.type, u.category, u.from_version, pg_catalog.array_agg(m.nspname::text) AS schemas, pg_catalog.array_agg(g.oid) AS functions
          FROM upcaster u
          JOIN pg_proc g ON g.proname = u.code[2] AND g.pronargs = 1 AND g.proargtypes[0] = 'jsonb'::regtype::oid AND g.prorettype = 'jsonb'::regtype::oid
          JOIN pg_namespace m ON m.oid = g.pronamespace
         WHERE u.function IS NULL AND pg_catalog.pg_has_role(g.proowner, u.role, 'USAGE')
         GROUP BY u.type, u.category, u.from_version),
    cure AS (
        SELECT u.*, e.schemas, r.lacks, r.remedy, r.remedy_by,
               CASE WHEN u.function IS NOT NULL THEN u.upcaster
                    WHEN pg_catalog.cardinality(e.schemas) = 1 THEN pg_catalog.format('%I.%I', e.schemas[1], u.code[2]) END AS name,
               CASE WHEN NOT EXISTS (SELECT FROM pg_namespace n WHERE n.nspname = u.code[1]) THEN u.code[1] END AS gone
          FROM upcaster u
          LEFT JOIN elsewhere e ON e.type = u.type AND e.category IS NOT DISTINCT FROM u.category AND e.from_version = u.from_version
          LEFT JOIN LATERAL es_health_reach(u.role, e.schemas[1], e.functions[1]) r ON pg_catalog.cardinality(e.schemas) = 1)
    SELECT 3, CASE WHEN u.function IS NULL THEN 'code_missing' ELSE 'role_missing' END, u.object, NULL::timestamptz,
           CASE WHEN u.function IS NULL THEN pg_catalog.format('The function %s does not exist. ', u.upcaster)
                ELSE pg_catalog.format('Its owner, %s, does not exist any more. It runs as the role that defines it anew. ', u.role_name) END
           || CASE WHEN u.name IS NULL THEN 'Create it again, or give another by es_define_upcaster(). '
                   WHEN u.function IS NULL THEN pg_catalog.format('Schema "%s" has one like it. ', u.schemas[1]) ELSE '' END
           || 'Events of the type and version cannot be read.',
           CASE WHEN u.name IS NOT NULL THEN
               pg_catalog.format('SELECT %s%I.es_define_upcaster(%L, %s, %L%s)', es_health_settings(u.search_path, u.settings, u.gone, u.schemas[1]),
                                 log.nspname, u.type, u.from_version, u.name, CASE WHEN u.category IS NOT NULL THEN pg_catalog.format(', %L', u.category) END) END,
           CASE WHEN u.role <> 0::oid THEN u.role_name
                ELSE (SELECT pg_catalog.pg_get_userbyid(p.proowner)::text FROM pg_proc p WHERE p.oid = u.function) END, u.role
      FROM cure u
     CROSS JOIN log
     WHERE (u.function IS NULL OR u.role = 0::oid) AND u.remedy IS NULL
    UNION ALL
    SELECT 3, 'right_missing', u.object, NULL,
           pg_catalog.format('The function %s does not exist. Schema "%s" has one like it. The upcaster''s owner, %s, lacks %s. Events of the type and version cannot be read.',
                             u.upcaster, u.schemas[1], u.role_name, u.lacks),
           u.remedy, u.remedy_by, u.role
      FROM cure u
     WHERE u.remedy IS NOT NULL
    UNION ALL
    SELECT 3, 'right_missing', u.object, NULL,
           pg_catalog.format('Its owner, %s, lacks %s. Events of the type and version cannot be read.', u.role_name, r.lacks),
           r.remedy, pg_catalog.pg_get_userbyid(r.by)::text, u.role
      FROM upcaster u
     CROSS JOIN LATERAL (
         SELECT pg_catalog.format('USAGE on schema %s', u.schema_oid::regnamespace) AS lacks,
                pg_catalog.format('GRANT USAGE ON SCHEMA %s TO %I', u.schema_oid::regnamespace, u.role_name) AS remedy, u.nspowner AS by
          WHERE NOT pg_catalog.has_schema_privilege(u.role, u.schema_oid, 'USAGE')
         UNION ALL
         SELECT pg_catalog.format('EXECUTE on function %s', u.function::regprocedure),
                pg_catalog.format('GRANT EXECUTE ON FUNCTION %s TO %I', u.function::regprocedure, u.role_name),
                (SELECT p.proowner FROM pg_proc p WHERE p.oid = u.function)
          WHERE NOT pg_catalog.has_function_privilege(u.role, u.function, 'EXECUTE')
         LIMIT 1) r
     WHERE u.role <> 0::oid AND u.function IS NOT NULL;
END;

REVOKE EXECUTE ON FUNCTION es_health_types() FROM PUBLIC;

COMMENT ON FUNCTION es_health_types() IS 'part of es_health: upcasters';
