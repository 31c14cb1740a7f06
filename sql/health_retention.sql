-- What needs a human, for the view es_health: rules of retention.

-- Rules that fail, that are held or late, and consumers that a rule has left behind.  What a
-- projection or subscription has not read is not to be lost by a remedy.  So the one for
-- a rule that is held lets a paused projection go on, and there is none for others.
CREATE FUNCTION es_health_retention(delay interval)
    RETURNS TABLE (urgency int, problem text, object text, since timestamptz, message text, remedy text, remedy_by text, owner oid)
    LANGUAGE sql STABLE PARALLEL RESTRICTED
BEGIN ATOMIC
    WITH log AS MATERIALIZED (
        SELECT pg_catalog.pg_get_userbyid(c.relowner)::text AS owner, n.nspname,
               pg_catalog.current_setting('eventstore.retention_rate')::bigint AS rate
          FROM pg_class c
          JOIN pg_namespace n ON n.oid = c.relnamespace
         WHERE c.oid = 'es_events'::regclass::oid),
    rule AS MATERIALIZED (
        SELECT r.*, pg_catalog.format('retention of %I', r.category) AS object FROM es_retention r),
    -- since when an event has been due that the rule could have looked at
    late AS (
        SELECT r.category, least(a.since, n.since) AS since
          FROM rule r
          LEFT JOIN LATERAL (
              SELECT e.recorded_at + r.max_age AS since FROM es_events e
               WHERE r.max_age IS NOT NULL AND es_category(e.stream) = r.category
                 AND es_by_index(es_category(e.stream), r.category) AND e.position > r.aged_position
               ORDER BY e.position LIMIT 1) a ON true
          LEFT JOIN LATERAL (
              SELECT e.recorded_at AS since FROM es_events e
               WHERE r.max_count IS NOT NULL AND es_category(e.stream) = r.category
                 AND es_by_index(es_category(e.stream), r.category) AND e.position > r.seen_position
               ORDER BY e.position LIMIT 1) n ON true
         WHERE r.held_by IS NULL AND r.message IS NULL)
    SELECT 5, 'retention_failed', r.object, r.failing_since,
           pg_catalog.format('It removes nothing: %s%s (%s attempts)', r.message, ': ' || r.detail, r.attempts),
           pg_catalog.format('SELECT * FROM %I.es_run_retention(%L)', log.nspname, r.category), log.owner, NULL::oid
      FROM rule r
     CROSS JOIN log
     WHERE r.message IS NOT NULL
    UNION ALL
    SELECT 7, 'retention_held', r.object, r.held_since,
           pg_catalog.format('Events after position %s are due, and %s has not read them. Let it go on or drop it; max_lag bounds how long it holds the rule.',
                             r.held_position, r.held_by),
           CASE WHEN p.state = 'paused' THEN pg_catalog.format('SELECT %I.es_resume_projection(%L)', log.nspname, p.name) END,
           CASE WHEN p.state = 'paused' THEN p.owner::text END, NULL
      FROM rule r
     CROSS JOIN log
      LEFT JOIN es_projections p ON r.held_by = 'projection ' || p.name
     WHERE r.held_by IS NOT NULL AND r.held_by <> 'horizon'
       AND r.held_since < pg_catalog.clock_timestamp() - least(coalesce(r.max_lag, '1 day'), '1 day')
    UNION ALL
    SELECT 7, 'retention_left_behind', r.object, NULL,
           pg_catalog.format('Events are removed that %s has not read, as its oldest unread event is older than max_lag. Let it catch up, or drop it.',
                             pg_catalog.array_to_string(r.left_behind, ', ')),
           NULL, NULL, NULL
      FROM rule r
     WHERE pg_catalog.cardinality(r.left_behind) > 0
    UNION ALL
    SELECT 8, 'retention_late', r.object, l.since,
           CASE WHEN log.rate = 0 THEN 'Events are due, and eventstore.retention_rate is 0, so that workers remove none. Reload the configuration after the change.'
                WHEN r.ran_at > pg_catalog.clock_timestamp() - interval '10 minutes' THEN
                    pg_catalog.format('Workers do not keep up with what is due, at %s events a second. Reload the configuration after the change.', log.rate)
                ELSE 'Events are due, and no worker runs the rule.' END,
           CASE WHEN log.rate = 0 THEN 'ALTER SYSTEM RESET eventstore.retention_rate'
                WHEN r.ran_at > pg_catalog.clock_timestamp() - interval '10 minutes' THEN
                    pg_catalog.format('ALTER SYSTEM SET eventstore.retention_rate = %s', least(log.rate * 2, 1000000))
                ELSE pg_catalog.format('SELECT %I.es_start_worker()', log.nspname) END,
           CASE WHEN log.rate = 0 OR r.ran_at > pg_catalog.clock_timestamp() - interval '10 minutes' THEN
                    (SELECT pg_catalog.min(s.rolname::text) FROM pg_roles s WHERE s.rolsuper) END, NULL
      FROM rule r
      JOIN late l ON l.category = r.category
     CROSS JOIN log
     WHERE l.since < pg_catalog.clock_timestamp() - greatest(delay, '1 hour')
       AND r.set_at < pg_catalog.clock_timestamp() - greatest(delay, '1 hour');
END;

REVOKE EXECUTE ON FUNCTION es_health_retention(interval) FROM PUBLIC;

COMMENT ON FUNCTION es_health_retention(interval) IS 'part of es_health: rules of retention';
