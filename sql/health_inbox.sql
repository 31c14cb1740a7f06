-- What needs a human, for the view es_health: the inbox.

-- Messages of the inbox that failed, one problem for each topic and group, of at most a
-- hundred.
CREATE FUNCTION es_health_inbox()
    RETURNS TABLE (urgency int, problem text, object text, since timestamptz, message text, remedy text, remedy_by text, owner oid)
    LANGUAGE sql STABLE PARALLEL RESTRICTED
BEGIN ATOMIC
    WITH RECURSIVE failure AS (
        (SELECT f.id, f.topic, f.group_id, 1 AS n
           FROM es_failures f
          WHERE f.projection IS NULL AND f.subscription IS NULL AND f.topic IS NOT NULL AND f.retry_at IS NULL AND f.message IS NOT NULL
          ORDER BY f.projection, f.subscription, f.topic, f.group_id, f.id LIMIT 1)
        UNION ALL
        SELECT g.id, g.topic, g.group_id, b.n + 1
          FROM failure b
         CROSS JOIN LATERAL (
             SELECT f.id, f.topic, f.group_id
               FROM es_failures f
              WHERE f.projection IS NULL AND f.subscription IS NULL AND (f.topic, f.group_id) > (b.topic, b.group_id)
                AND f.retry_at IS NULL AND f.message IS NOT NULL
              ORDER BY f.projection, f.subscription, f.topic, f.group_id, f.id LIMIT 1) g
         WHERE b.n < 100),
    log AS MATERIALIZED (
        SELECT n.oid AS schema, n.nspname,
               (SELECT t.oid FROM pg_type t WHERE t.typname = 'es_ack_event' AND t.typnamespace = n.oid) AS ack
          FROM pg_class c
          JOIN pg_namespace n ON n.oid = c.relnamespace
         WHERE c.oid = 'es_events'::regclass::oid),
    found AS (
        SELECT f.*, f.receiver::oid AS role, f.receiver::text AS role_name, log.nspname,
               es_health_external(f.sqlstate) AS is_external,
               pg_catalog.to_regprocedure(f.handler) IS NULL AS is_gone,
               coalesce(r.remedy, g.remedy) AS grant_remedy, coalesce(r.remedy_by, g.remedy_by) AS grant_by, r.lacks, h.code[1] AS schema, h.code[2] AS function, o.schemas,
               (SELECT count(*) FROM (SELECT FROM es_failures x
                                       WHERE x.projection IS NULL AND x.subscription IS NULL AND x.topic = f.topic AND x.group_id = f.group_id
                                         AND x.retry_at IS NULL AND x.message IS NOT NULL LIMIT 101) y) AS many
          FROM failure b
         CROSS JOIN log
          JOIN es_failures f ON f.id = b.id
         CROSS JOIN LATERAL (SELECT pg_catalog.parse_ident(f.handler, false) AS code) h
         CROSS JOIN LATERAL (
             SELECT pg_catalog.array_agg(m.nspname::text) AS schemas, pg_catalog.array_agg(g.oid) AS functions
               FROM pg_proc g
               JOIN pg_namespace m ON m.oid = g.pronamespace
              WHERE pg_catalog.to_regprocedure(f.handler) IS NULL AND g.proname = h.code[2] AND g.prorettype = log.ack
                AND g.pronargs = 2 AND g.proargtypes[0] = 'text'::regtype::oid AND g.proargtypes[1] = 'jsonb'::regtype::oid
                AND (pg_catalog.pg_has_role(g.proowner, f.receiver::oid, 'USAGE')
                     OR pg_catalog.has_table_privilege(g.proowner, 'es_failures'::regclass::oid, 'SELECT'))) o
          LEFT JOIN LATERAL es_health_grant(f.receiver::oid, f.search_path, '{}'::oid[], f.message, f.context, NULL) g
                 ON f.sqlstate IN ('42501', '42P01', '42883', '42704', '3F000')
          LEFT JOIN LATERAL es_health_reach(f.receiver::oid, o.schemas[1], o.functions[1]) r ON pg_catalog.cardinality(o.schemas) = 1),
    said AS (
        SELECT f.*,
               CASE WHEN f.role = 0::oid THEN 'role' WHEN f.is_gone AND f.lacks IS NULL THEN 'code' WHEN f.grant_remedy IS NOT NULL THEN 'right'
                    WHEN f.is_external THEN 'cause' WHEN f.last_failed_at > f.first_failed_at THEN 'again' ELSE 'once' END AS why
          FROM found f)
    SELECT 6, CASE f.why WHEN 'code' THEN 'code_missing' WHEN 'right' THEN 'right_missing' ELSE 'message_failed' END,
           pg_catalog.format('topic %L, group %L', f.topic, f.group_id), f.first_failed_at,
           pg_catalog.format('%s, the first %safter %s: %s. ',
                             CASE WHEN f.many > 100 THEN 'More than 100 messages have failed' WHEN f.many = 1 THEN '1 message has failed'
                                  ELSE f.many::text || ' messages have failed' END,
                             'with id "' || f.message_id || '" ', CASE WHEN f.attempts = 1 THEN '1 attempt' ELSE f.attempts::text || ' attempts' END, f.message)
           || CASE f.why
                  WHEN 'role' THEN pg_catalog.format('Its receiver, %s, does not exist any more. Receive it again, or discard it.', f.role_name)
                  WHEN 'code' THEN pg_catalog.format('Its handler %s does not exist. ', f.handler)
                      || CASE WHEN pg_catalog.cardinality(f.schemas) = 1 THEN pg_catalog.format('Schema "%s" has one like it, by which it can be received again.', f.schemas[1])
                              ELSE pg_catalog.format('Create it again and use es_retry(%s), or discard it.', f.id) END
                  WHEN 'right' THEN pg_catalog.format('Its receiver, %s, lacks %s. ', f.role_name, coalesce(f.lacks, 'the privilege'))
                      || CASE WHEN f.lacks IS NULL THEN 'Then call es_retry() for it.' ELSE pg_catalog.format('Its handler %s has moved there.', f.handler) END
                  WHEN 'cause' THEN pg_catalog.format('The cause lies outside of the message. When it is gone, retry it by handler %s.', f.handler)
                  WHEN 'again' THEN pg_catalog.format('It has failed again. Fix handler %s and use es_retry(%s), or discard it.', f.handler, f.id)
                  ELSE pg_catalog.format('Fix the cause, and retry it by handler %s.', f.handler) END,
           CASE WHEN f.why = 'code' AND pg_catalog.cardinality(f.schemas) = 1 THEN
                    pg_catalog.format('SELECT %1$s%2$I.es_receive(f.topic, f.group_id, f.payload, %3$L, f.metadata, 0, f.attempts, f.message_id)'
                                      || ' FROM %2$I.es_visible_failures f WHERE f.id = %4$s',
                        es_health_settings(f.search_path, '{}'::text[],
                                           CASE WHEN NOT EXISTS (SELECT FROM pg_namespace n WHERE n.nspname = f.schema) THEN f.schema END, f.schemas[1]),
                        f.nspname, pg_catalog.format('%I.%I', f.schemas[1], f.function), f.id)
                WHEN f.why = 'code' THEN NULL
                WHEN f.why = 'right' THEN f.grant_remedy
                WHEN f.why IN ('role', 'again') THEN pg_catalog.format('SELECT %I.es_discard(%s)', f.nspname, f.id)
                ELSE pg_catalog.format('SELECT %I.es_retry(%s)', f.nspname, f.id) END,
           CASE f.why WHEN 'code' THEN f.role_name WHEN 'right' THEN f.grant_by END, f.role
      FROM said f;
END;

REVOKE EXECUTE ON FUNCTION es_health_inbox() FROM PUBLIC;

COMMENT ON FUNCTION es_health_inbox() IS 'part of es_health: the inbox';
