-- What needs a human, for the view es_health: subscriptions.

-- Subscriptions whose consumers do not come, do not finish, or have parked events.
CREATE FUNCTION es_health_subscriptions(delay interval)
    RETURNS TABLE (urgency int, problem text, object text, since timestamptz, message text, remedy text, remedy_by text, owner oid)
    LANGUAGE sql STABLE PARALLEL RESTRICTED
BEGIN ATOMIC
    WITH log AS MATERIALIZED (
        SELECT c.oid, c.oid::regclass::text AS name, pg_catalog.pg_get_userbyid(c.relowner)::text AS owner, n.nspname
          FROM pg_class c
          JOIN pg_namespace n ON n.oid = c.relnamespace
         WHERE c.oid = 'es_events'::regclass::oid),
    subscription AS MATERIALIZED (
        SELECT s.*, s.owner::oid AS role, s.owner::text AS role_name, pg_catalog.format('subscription %I', s.name) AS object
          FROM es_subscriptions s),
    -- where the partition that no consumer works on and that is furthest behind goes on
    idle AS (
        SELECT p.subscription, p.partition, p.delivered_at,
               CASE WHEN p.leased_until IS NULL THEN greatest(p.position, p.reached) ELSE p.position END AS position
          FROM es_partitions p
         WHERE coalesce(p.leased_until, p.delivered_at, '-infinity') < pg_catalog.clock_timestamp() - delay),
    waiting AS (
        SELECT s.name, e.position, e.version, e.recorded_at, e.stream, e.type, e.id, i.delivered_at
          FROM subscription s
         CROSS JOIN (SELECT es_horizon() AS horizon OFFSET 0) h
         CROSS JOIN LATERAL (SELECT min(i.position) AS position FROM idle i WHERE i.subscription = s.name) f
         CROSS JOIN LATERAL (
             SELECT w.*
               FROM (SELECT * FROM (SELECT x.position, x.version, x.recorded_at, x.stream, x.type, x.id, x.data FROM es_events x
                                     WHERE s.categories IS NULL AND s.query IS NULL AND x.position > f.position AND x.position <= h.horizon
                                     ORDER BY x.position LIMIT 100) a
                     UNION ALL
                     SELECT x.* FROM pg_catalog.unnest(s.categories) AS k (category)
                      CROSS JOIN LATERAL (
                          SELECT x.position, x.version, x.recorded_at, x.stream, x.type, x.id, x.data FROM es_events x
                           WHERE s.query IS NULL AND es_category(x.stream) = k.category AND es_by_index(es_category(x.stream), k.category)
                             AND x.position > f.position AND x.position <= h.horizon
                           ORDER BY x.position LIMIT 100) x
                     UNION ALL
                     SELECT x.position, x.version, x.recorded_at, x.stream, x.type, x.id, x.data
                       FROM pg_catalog.unnest(es_source_positions(s.query, s.categories, s.types, f.position, h.horizon, 100)) k (position)
                       JOIN es_events x ON x.position = k.position) w
              WHERE s.types IS NULL OR w.type = ANY (s.types)
                 OR w.type IN ('es_stream_deleted', 'es_compacted', 'es_stream_archived') AND w.data -> 'types'::text ?| s.types) e
          JOIN idle i ON i.subscription = s.name AND i.partition = es_partition(e.stream, s.partitions::bigint) AND i.position < e.position
         WHERE s.role <> 0::oid AND pg_catalog.has_table_privilege(s.role, 'es_events'::regclass::oid, 'SELECT')
           AND s.created_at < pg_catalog.clock_timestamp() - delay AND e.recorded_at < pg_catalog.clock_timestamp() - delay)
    SELECT 4, 'role_missing', s.object, s.created_at,
           pg_catalog.format('Its owner, %s, does not exist any more. It delivers nothing.', s.role_name),
           pg_catalog.format('SELECT %I.es_drop_subscription(%L)', log.nspname, s.name), log.owner, s.role
      FROM subscription s
     CROSS JOIN log
     WHERE s.role = 0::oid
    UNION ALL
    SELECT 4, 'right_missing', s.object, NULL,
           pg_catalog.format('Its owner "%s" may not read the log. It delivers nothing.', s.role_name),
           pg_catalog.format('GRANT SELECT ON %s TO %I', log.name, s.role_name), log.owner, s.role
      FROM subscription s
     CROSS JOIN log
     WHERE s.role <> 0::oid AND NOT pg_catalog.has_table_privilege(s.role, log.oid, 'SELECT')
    UNION ALL
    SELECT 6, 'event_parked', s.object, f.first_failed_at,
           pg_catalog.format('%s parked for good, the first at position %s (version %s of stream "%s", type "%s", id %s): %s. ',
                             CASE WHEN c.many > 100 THEN 'More than 100 events are' WHEN c.many = 1 THEN '1 event is' ELSE c.many::text || ' events are' END,
                             f.position, f.version, f.stream, f.type, f.event_id, f.message)
           || CASE WHEN f.attempts > s.max_attempts THEN 'It has failed again. Fix the consumer and use es_retry(), or discard it.'
                   ELSE 'Fix the cause, and retry it. Later events of the stream wait behind it.' END,
           CASE WHEN f.attempts > s.max_attempts THEN pg_catalog.format('SELECT %I.es_discard(%s)', log.nspname, f.id)
                ELSE pg_catalog.format('SELECT %I.es_retry(%s)', log.nspname, f.id) END,
           NULL, s.role
      FROM subscription s
     CROSS JOIN log
     CROSS JOIN LATERAL (
         SELECT x.* FROM es_failures x
          WHERE x.projection IS NULL AND x.subscription = s.name AND x.topic IS NULL AND x.group_id IS NULL
            AND x.retry_at IS NULL AND x.message IS NOT NULL
          ORDER BY x.projection, x.subscription, x.topic, x.group_id, x.id LIMIT 1) f
     CROSS JOIN LATERAL (
         SELECT count(*) AS many
           FROM (SELECT FROM es_failures x
                  WHERE x.projection IS NULL AND x.subscription = s.name AND x.retry_at IS NULL AND x.message IS NOT NULL LIMIT 101) y) c
    UNION ALL
    SELECT 7, 'lease_expires', s.object, p.delivered_at,
           pg_catalog.format('Events after position %s of partition %s were delivered, and their lease expired %s times. The consumer dies at one of them, or the lease of %s is too short: es_alter_subscription() gives it a longer one.',
                             p.position, p.partition, p.expired, s.lease),
           NULL, s.role_name, s.role
      FROM subscription s
     CROSS JOIN log
     CROSS JOIN LATERAL (
         SELECT p.partition, p.position, p.delivered_at, max(t.times) AS expired
           FROM es_partitions p
          CROSS JOIN LATERAL pg_catalog.unnest(p.expired_times) t (times)
          WHERE p.subscription = s.name
          GROUP BY p.partition, p.position, p.delivered_at
         HAVING max(t.times) >= 3
          ORDER BY max(t.times) DESC LIMIT 1) p
    UNION ALL
    SELECT 7, 'consumer_missing', s.object, coalesce(greatest(w.delivered_at, w.recorded_at, s.created_at), s.created_at),
           pg_catalog.format('No consumer polls, and the event at position %s (version %s of stream "%s", type "%s", id %s) waits. Start one, skip what waits by es_seek(), or drop the subscription.',
                             w.position, w.version, w.stream, w.type, w.id),
           NULL, s.role_name, s.role
      FROM subscription s
      JOIN (SELECT DISTINCT ON (w.name) w.* FROM waiting w ORDER BY w.name, w.position) w ON w.name = s.name;
END;

REVOKE EXECUTE ON FUNCTION es_health_subscriptions(interval) FROM PUBLIC;

COMMENT ON FUNCTION es_health_subscriptions(interval) IS 'part of es_health: subscriptions';
