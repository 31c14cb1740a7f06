-- What needs a human, for the view es_health: projections.

-- Projections that do not go on, one problem for each, and their parked events.
CREATE FUNCTION es_health_projections(delay interval)
    RETURNS TABLE (urgency int, problem text, object text, since timestamptz, message text, remedy text, remedy_by text, owner oid)
    LANGUAGE sql STABLE PARALLEL RESTRICTED
BEGIN ATOMIC
    WITH log AS MATERIALIZED (
        SELECT c.oid, c.oid::regclass::text AS name, pg_catalog.pg_get_userbyid(c.relowner)::text AS owner,
               n.oid AS schema, n.nspname,
               (SELECT t.oid FROM pg_type t WHERE t.typname = 'es_recorded_event' AND t.typnamespace = n.oid) AS event
          FROM pg_class c
          JOIN pg_namespace n ON n.oid = c.relnamespace
         WHERE c.oid = 'es_events'::regclass::oid),
    projection AS MATERIALIZED (
        SELECT p.*, p.owner::oid AS role, p.owner::text AS role_name,
               es_health_external(p.sqlstate) AS is_external,
               CASE WHEN p.handler IS NOT NULL THEN 'handler' WHEN p.query IS NOT NULL THEN 'query' ELSE 'handler_schema' END AS kind,
               CASE WHEN p.handler IS NOT NULL THEN pg_catalog.parse_ident(p.handler) ELSE ARRAY[p.handler_schema] END AS code,
               pg_catalog.format('projection %I', p.name) AS object,
               CASE WHEN p.failed_position IS NOT NULL THEN
                   coalesce((SELECT pg_catalog.format('at the event at position %s (version %s of stream "%s", type "%s", id %s)',
                                                      e.position, e.version, e.stream, e.type, e.id)
                               FROM es_events e WHERE e.position = p.failed_position),
                            pg_catalog.format('at position %s', p.failed_position)) END AS event
          FROM es_projections p),
    -- the schema of the code, the function, and where else there is one like it
    handler AS (
        SELECT p.name, n.oid AS schema, f.oid AS function, f.proowner, n.nspowner, o.schemas,
               n.oid IS NULL OR (p.handler IS NOT NULL AND f.oid IS NULL) AS is_gone,
               CASE WHEN p.handler IS NOT NULL THEN o.functions END AS functions
          FROM projection p
         CROSS JOIN log
          LEFT JOIN pg_namespace n ON n.nspname = p.code[1]
          LEFT JOIN pg_proc f ON p.handler IS NOT NULL AND f.pronamespace = n.oid AND f.proname = p.code[2]
                             AND f.pronargs = 1 AND f.proargtypes[0] = log.event
         CROSS JOIN LATERAL (
             SELECT pg_catalog.array_agg(DISTINCT m.nspname::text) AS schemas, pg_catalog.array_agg(g.oid) AS functions
               FROM pg_proc g
               JOIN pg_namespace m ON m.oid = g.pronamespace
              WHERE (n.oid IS NULL OR (p.handler IS NOT NULL AND f.oid IS NULL))
                AND g.pronargs = 1 AND g.proargtypes[0] = log.event AND g.prorettype = 'void'::regtype::oid
                AND pg_catalog.pg_has_role(g.proowner, p.role, 'USAGE') AND (p.handler IS NOT NULL OR pg_catalog.pg_has_role(m.nspowner, p.role, 'USAGE'))
                AND CASE WHEN p.handler IS NOT NULL THEN g.proname = p.code[2]
                         ELSE pg_catalog.starts_with(g.proname::text, 'on_')
                              AND NOT EXISTS (SELECT FROM es_projections q WHERE q.handler_schema = m.nspname::text) END) o
         WHERE p.handler IS NOT NULL OR p.handler_schema IS NOT NULL),
    -- a schema of the search_path that is gone, and the only one that has what is missing
    moved AS (
        SELECT p.name, g.gone, g.instead
          FROM projection p
         CROSS JOIN LATERAL (
             -- the server prints the name as it is, without quotes of its own
             SELECT (pg_catalog.regexp_match(p.message, '^relation "(.+)" does not exist$'))[1] AS name) m
         CROSS JOIN LATERAL (
             SELECT min(s.schema) AS gone, (SELECT min(n.nspname::text) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                                             WHERE c.relname = m.name::name AND c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S')
                                               AND pg_catalog.pg_has_role(n.nspowner, p.role, 'USAGE')
                                            HAVING count(*) = 1) AS instead
               FROM es_health_path(p.search_path) s
              WHERE NOT EXISTS (SELECT FROM pg_namespace n WHERE n.nspname = s.schema) AND s.schema <> '$user'
             HAVING count(*) = 1) g
         WHERE p.sqlstate = '42P01' AND g.instead IS NOT NULL),
    problem AS (
        SELECT p.name, 0 AS n, 4 AS urgency, 'role_missing' AS problem, p.created_at AS since,
               pg_catalog.format('Its owner, %s, does not exist any more. It cannot run. Its tables stay when it is dropped; create it again as their new owner, with start_position => %s.',
                                 p.role_name,
                                 -- a sync one has no checkpoint: it has handled all that there is
                                 CASE WHEN p.mode = 'sync' AND p.state = 'running' THEN coalesce((SELECT max(e.position) FROM es_events e), 0)
                                      ELSE p.position END) AS message,
               pg_catalog.format('SELECT %I.es_drop_projection(%L)', log.nspname, p.name) AS remedy, log.owner AS remedy_by
          FROM projection p
         CROSS JOIN log
         WHERE p.role = 0::oid
        UNION ALL
        SELECT p.name, 1, 4, 'right_missing', p.failing_since,
               pg_catalog.format('Its code was in "%s". Schema "%s" has one like it. The projection''s owner, "%s", lacks %s.', p.code[1], h.schemas[1], p.role_name, r.lacks),
               r.remedy, r.remedy_by
          FROM handler h
          JOIN projection p ON p.name = h.name
         CROSS JOIN LATERAL es_health_reach(p.role, h.schemas[1], h.functions[1]) r
         WHERE h.is_gone AND pg_catalog.cardinality(h.schemas) = 1 AND r.remedy IS NOT NULL
        UNION ALL
        SELECT p.name, 2, 4, 'code_missing', p.failing_since,
               CASE WHEN p.handler IS NOT NULL THEN pg_catalog.format('Its handler %s(%I.es_recorded_event) does not exist. ', p.handler, log.nspname)
                    ELSE pg_catalog.format('Its handler_schema "%s" does not exist. ', p.handler_schema) END
               || CASE WHEN pg_catalog.cardinality(h.schemas) = 1 THEN pg_catalog.format('Schema "%s" has one like it.', h.schemas[1])
                       ELSE 'Create it again, or give the projection another by es_alter_projection().' END,
               CASE WHEN pg_catalog.cardinality(h.schemas) = 1 THEN
                   pg_catalog.format('SELECT %s%I.es_alter_projection(%L, %s => %L)',
                       es_health_settings(p.search_path, p.settings, CASE WHEN h.schema IS NULL THEN p.code[1] END, h.schemas[1]),
                       log.nspname, p.name, p.kind,
                       CASE WHEN p.handler IS NOT NULL THEN pg_catalog.format('%I.%I', h.schemas[1], p.code[2]) ELSE pg_catalog.quote_ident(h.schemas[1]) END) END,
               p.role_name
          FROM handler h
          JOIN projection p ON p.name = h.name
         CROSS JOIN log
         WHERE h.is_gone
        UNION ALL
        SELECT p.name, 3, 4, 'right_missing', p.failing_since,
               pg_catalog.format('Its owner "%s" lacks %s. It cannot run.', p.role_name, r.lacks),
               r.remedy, pg_catalog.pg_get_userbyid(r.by)::text
          FROM projection p
         CROSS JOIN log
          LEFT JOIN handler h ON h.name = p.name
          JOIN LATERAL (
             SELECT pg_catalog.format('SELECT on %s', log.name) AS lacks, pg_catalog.format('GRANT SELECT ON %s TO %I', log.name, p.role_name) AS remedy,
                    (SELECT c.relowner FROM pg_class c WHERE c.oid = log.oid) AS by
              WHERE NOT pg_catalog.has_table_privilege(p.role, log.oid, 'SELECT')
             UNION ALL
             SELECT pg_catalog.format('USAGE on schema %s', h.schema::regnamespace), pg_catalog.format('GRANT USAGE ON SCHEMA %s TO %I', h.schema::regnamespace, p.role_name), h.nspowner
              WHERE NOT pg_catalog.has_schema_privilege(p.role, h.schema, 'USAGE')
             UNION ALL
             SELECT pg_catalog.format('EXECUTE on function %s', h.function::regprocedure), pg_catalog.format('GRANT EXECUTE ON FUNCTION %s TO %I', h.function::regprocedure, p.role_name), h.proowner
              WHERE NOT pg_catalog.has_function_privilege(p.role, h.function, 'EXECUTE')
             UNION ALL
             -- what a sync projection fails with is known to the appenders alone
             SELECT pg_catalog.format('%s on %s', l.lacks, t.tab), pg_catalog.format('GRANT %s ON TABLE %s TO %I', l.lacks, t.tab, p.role_name),
                    (SELECT c.relowner FROM pg_class c WHERE c.oid = t.tab::oid)
               FROM pg_catalog.unnest(p.tables) t (tab)
              CROSS JOIN LATERAL (
                  SELECT pg_catalog.string_agg(v.verb, ', ') AS lacks
                    FROM pg_catalog.unnest('{SELECT,INSERT,UPDATE,DELETE}'::text[]) v (verb)
                   WHERE NOT pg_catalog.has_table_privilege(p.role, t.tab::oid, v.verb)) l
              WHERE p.mode = 'sync' AND p.state = 'running' AND l.lacks IS NOT NULL
             LIMIT 1) r ON true
         WHERE p.role <> 0::oid
        UNION ALL
        SELECT p.name, 4, 4, 'right_missing', p.failing_since,
               pg_catalog.format('It waits %s: %s', coalesce(p.event, 'at a batch'), p.message), g.remedy, g.remedy_by
          FROM projection p
         CROSS JOIN LATERAL es_health_grant(p.role, p.search_path, (SELECT pg_catalog.array_agg(t.tab::oid) FROM pg_catalog.unnest(p.tables) t (tab)), p.message, p.context, p.query) g
         WHERE p.sqlstate IN ('42501', '42P01', '42883', '42704', '3F000') AND g.remedy IS NOT NULL
        UNION ALL
        SELECT p.name, 5, 4, 'code_missing', p.failing_since,
               pg_catalog.format('It waits %s: %s. Schema "%s" of its search_path does not exist; "%s" has it.', coalesce(p.event, 'at a batch'), p.message, m.gone, m.instead),
               pg_catalog.format('SELECT %s%I.es_alter_projection(%L, %s => %L)', es_health_settings(p.search_path, p.settings, m.gone, m.instead),
                                 log.nspname, p.name, p.kind, coalesce(p.handler, p.query, pg_catalog.quote_ident(p.handler_schema))),
               p.role_name
          FROM moved m
         CROSS JOIN log
          JOIN projection p ON p.name = m.name
         WHERE p.refresh IS NULL
        UNION ALL
        SELECT p.name, 6, 4, CASE WHEN p.sqlstate = '42501' THEN 'right_missing' ELSE 'code_missing' END, p.failing_since,
               pg_catalog.format('It waits %s: %s. ', coalesce(p.event, 'at a batch'), p.message)
               || CASE WHEN p.sqlstate = '42501' THEN pg_catalog.format('Grant "%s" the privilege, or let it own the object. It then goes on by itself.', p.role_name)
                       ELSE 'Create what is missing or rename it back, or give the projection other code by es_alter_projection(). It then goes on by itself.' END,
               pg_catalog.format('SELECT %I.es_resume_projection(%L)', log.nspname, p.name), NULL
          FROM projection p
         CROSS JOIN log
         WHERE p.mode = 'async' AND p.state <> 'paused' AND (pg_catalog.starts_with(p.sqlstate, '42') OR p.sqlstate IN ('3F000', '3D000'))
        UNION ALL
        SELECT p.name, 7, 5, 'projection_waits', p.failing_since,
               pg_catalog.format('It has waited for %s %s: %s. ', CASE WHEN p.attempts = 1 THEN '1 attempt' ELSE p.attempts::text || ' attempts' END, coalesce(p.event, 'at a batch'), p.message)
               || 'The cause lies outside of the event. It goes on by itself when that is gone.',
               pg_catalog.format('SELECT %I.es_resume_projection(%L)', log.nspname, p.name), NULL
          FROM projection p
         CROSS JOIN log
         WHERE p.mode = 'async' AND p.state <> 'paused' AND p.is_external
           AND (p.attempts >= 3 OR p.failing_since < pg_catalog.clock_timestamp() - delay)
        UNION ALL
        SELECT p.name, 8, 5, CASE WHEN p.state = 'failed' THEN 'projection_failed' ELSE 'projection_retries' END, p.failing_since,
               pg_catalog.format('%s failed %s: %s. ', CASE WHEN p.attempts = 1 THEN '1 attempt has' ELSE p.attempts::text || ' attempts have' END, coalesce(p.event, 'at a batch'), p.message)
               || CASE WHEN p.failed_position IS NULL THEN 'Fix the cause. It tries again by itself.'
                       ELSE 'Fix the handler, or skip the event. It tries again by itself.' END,
               CASE WHEN p.failed_position IS NULL THEN pg_catalog.format('SELECT %I.es_resume_projection(%L)', log.nspname, p.name)
                    ELSE pg_catalog.format('SELECT %I.es_skip_event(%L, %s, %L)', log.nspname, p.name, p.failed_position,
                                           pg_catalog.format('%s: %s', p.sqlstate, pg_catalog."left"(p.message, 200))) END,
               NULL
          FROM projection p
         CROSS JOIN log
         WHERE p.mode = 'async' AND p.message IS NOT NULL AND NOT p.is_external
           AND (p.state = 'failed' OR (p.state = 'running' AND p.failing_since < pg_catalog.clock_timestamp() - delay))
        UNION ALL
        SELECT p.name, 9, 4, 'trigger_missing', NULL,
               'It is sync, and its trigger on the log is missing or disabled. It has missed what was appended since.',
               pg_catalog.format('SELECT %1$I.es_rebuild_projection(%2$L), %1$I.es_pause_projection(%2$L), %1$I.es_resume_projection(%2$L)', log.nspname, p.name), NULL
          FROM projection p
         CROSS JOIN log
         WHERE p.mode = 'sync' AND p.state = 'running'
           AND NOT EXISTS (SELECT FROM pg_trigger t WHERE t.tgrelid = log.oid AND t.tgname::text = p.name AND t.tgenabled = 'A')
        UNION ALL
        SELECT p.name, 10, 8, 'projection_paused', p.paused_at,
               'es_pause_projection() was called. It gets no events until it is resumed.',
               pg_catalog.format('SELECT %I.es_resume_projection(%L)', log.nspname, p.name), NULL
          FROM projection p
         CROSS JOIN log
         WHERE p.state = 'paused'),
    first AS (
        SELECT DISTINCT ON (q.name) q.* FROM problem q ORDER BY q.name, q.n)
    SELECT CASE WHEN p.mode = 'sync' AND p.state = 'running' AND f.n <= 3 THEN 1 ELSE f.urgency END, f.problem, p.object, f.since,
           f.message || CASE WHEN p.mode = 'sync' AND p.state = 'running' AND f.n <= 3 THEN ' It is sync: appends that it wants fail.' ELSE '' END,
           f.remedy, f.remedy_by, p.role
      FROM first f
      JOIN projection p ON p.name = f.name
    UNION ALL
    SELECT 6, 'event_parked', p.object, f.first_failed_at,
           pg_catalog.format('%s parked for good, the first at position %s (version %s of stream "%s", type "%s", id %s): %s. ',
                             CASE WHEN c.many > 100 THEN 'More than 100 events are' WHEN c.many = 1 THEN '1 event is' ELSE c.many::text || ' events are' END,
                             f.position, f.version, f.stream, f.type, f.event_id, f.message)
           || CASE WHEN f.attempts > p.max_attempts THEN 'It has failed again. Fix the handler and use es_retry(), or discard it.'
                   ELSE 'Fix the cause, and retry it. Later events of the stream wait behind it.' END,
           CASE WHEN f.attempts > p.max_attempts THEN pg_catalog.format('SELECT %I.es_discard(%s)', log.nspname, f.id)
                ELSE pg_catalog.format('SELECT %I.es_retry(%s)', log.nspname, f.id) END,
           NULL, p.role
      FROM projection p
     CROSS JOIN log
     CROSS JOIN LATERAL (
         SELECT x.* FROM es_failures x
          WHERE x.projection = p.name AND x.subscription IS NULL AND x.topic IS NULL AND x.group_id IS NULL
            AND x.retry_at IS NULL AND x.message IS NOT NULL
          ORDER BY x.projection, x.subscription, x.topic, x.group_id, x.id LIMIT 1) f
     CROSS JOIN LATERAL (
         SELECT count(*) AS many
           FROM (SELECT FROM es_failures x
                  WHERE x.projection = p.name AND x.retry_at IS NULL AND x.message IS NOT NULL LIMIT 101) y) c
    UNION ALL
    SELECT 3, 'worker_missing', pg_catalog.format('database %I', pg_catalog.current_database()), min(w.since),
           pg_catalog.format('No worker serves the database. Async projections that are behind: %s%s. Set eventstore.databases and preload the library to have workers always.',
                             pg_catalog.array_to_string((pg_catalog.array_agg(w.name ORDER BY w.name))[1:10], ', '),
                             CASE WHEN count(*) > 10 THEN pg_catalog.format(' and %s more', count(*) - 10) END),
           min(pg_catalog.format('SELECT %I.es_start_worker()', w.nspname)), NULL, NULL
      FROM (SELECT p.name, log.nspname, greatest(b.recorded_at, p.created_at) AS since
              FROM projection p
             CROSS JOIN log
             CROSS JOIN (SELECT es_horizon() AS horizon OFFSET 0) h
             CROSS JOIN LATERAL (
                 SELECT e.recorded_at FROM es_events e WHERE e.position > p.position AND e.position <= h.horizon ORDER BY e.position LIMIT 1) b
             WHERE p.mode = 'async' AND p.state <> 'paused' AND NOT pg_catalog.pg_is_in_recovery()
               AND coalesce(p.ran_at, p.created_at) < pg_catalog.clock_timestamp() - delay
               AND coalesce(p.next_attempt, p.created_at) < pg_catalog.clock_timestamp() - delay
               AND b.recorded_at < pg_catalog.clock_timestamp() - delay) w
     WHERE NOT EXISTS (SELECT FROM pg_stat_activity a
                        WHERE a.backend_type = 'eventstore worker' AND a.datname = pg_catalog.current_database())
    HAVING count(*) > 0;
END;

REVOKE EXECUTE ON FUNCTION es_health_projections(interval) FROM PUBLIC;

COMMENT ON FUNCTION es_health_projections(interval) IS 'part of es_health: projections';
