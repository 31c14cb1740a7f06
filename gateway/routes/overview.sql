-- What there is at a glance: for the first page of the console, for charts and for checks.

-- GET /ping
-- read public
SELECT 'PONG' AS body, 'text/plain; charset=utf-8' AS "Content-Type", 'no-store' AS "Cache-Control";

-- What the role of the token may do.  Nothing of the extension is called, as a role without any right may ask.

-- GET /v1/whoami
-- read
SELECT json_build_object(
           'role', current_user,
           'may', (SELECT coalesce(json_agg(k.word ORDER BY k.ordinal), '[]')
                     FROM (VALUES (1, 'read', 'es_load'), (2, 'append', 'es_append_if'), (3, 'operate', 'es_retry'),
                                  (4, 'remove', 'es_delete_stream')) k (ordinal, word, function)
                    WHERE EXISTS (SELECT FROM pg_proc p
                                   WHERE p.proname = k.function AND p.pronamespace = x.extnamespace
                                     AND has_schema_privilege(p.pronamespace, 'USAGE')
                                     AND has_function_privilege(p.oid, 'EXECUTE'))),
           'database', current_database(),
           'version', x.extversion) AS body,
       'private, no-store' AS "Cache-Control"
  FROM pg_extension x
 WHERE x.extname = 'eventstore';

-- The rate is that of the last 10 seconds, or of the last 1,000 events where these are fewer.

-- GET /v1/overview
-- read
WITH latest AS MATERIALIZED (
        SELECT e.position, e.recorded_at FROM es_events e ORDER BY e.position DESC LIMIT 1000),
    recent AS (
        SELECT count(*) AS events, min(l.recorded_at) AS since
          FROM latest l
         WHERE l.recorded_at > statement_timestamp() - interval '10 s')
SELECT json_build_object(
           'now', statement_timestamp(),
           'horizon', es_horizon(),
           'last_position', coalesce((SELECT max(l.position) FROM latest l), 0),
           'last_recorded_at', (SELECT max(l.recorded_at) FROM latest l),
           'events_per_second', round(r.events / CASE WHEN r.events < 1000 THEN 10
                   ELSE greatest(extract(epoch FROM statement_timestamp() - r.since), 0.001) END, 1),
           'projections', (SELECT json_build_object('all', count(*),
                                      'running', count(*) FILTER (WHERE p.state = 'running'),
                                      'retrying', count(*) FILTER (WHERE p.state = 'retrying'),
                                      'failed', count(*) FILTER (WHERE p.state = 'failed'),
                                      'paused', count(*) FILTER (WHERE p.state = 'paused'),
                                      'lag_events', coalesce(max(p.lag_events), 0),
                                      'lag_seconds', coalesce(max(p.lag_seconds), 0))
                             FROM es_projection_status p),
           'subscriptions', (SELECT json_build_object('all', count(DISTINCT s.subscription),
                                        'in_flight', coalesce(sum(s.in_flight), 0),
                                        'lag_events', coalesce(max(s.lag_events), 0),
                                        'lag_seconds', coalesce(max(s.lag_seconds), 0))
                               FROM es_subscription_status s),
           'failures', (SELECT count(*) FROM es_visible_failures f),
           'workers', (SELECT count(*) FROM pg_stat_activity a
                        WHERE a.datname = current_database() AND a.application_name = 'eventstore worker')) AS body,
       'private, no-store' AS "Cache-Control"
  FROM recent r;

-- GET /v1/health
-- read
SELECT coalesce(json_agg(h), '[]') AS body,
       'private, no-store' AS "Cache-Control"
  FROM (SELECT h.urgency, h.problem, h.object, h.since, h.message, h.remedy, h.remedy_by FROM es_health h) h;

-- GET /v1/stats
-- read
SELECT json_build_object('now', statement_timestamp(),
                         'categories', (SELECT coalesce(json_agg(s ORDER BY s.category), '[]') FROM es_stats s),
                         'inbox', (SELECT coalesce(json_agg(i ORDER BY i.topic, i.group_id), '[]')
                                     FROM es_inbox_stats i)) AS body,
       'private, no-store' AS "Cache-Control";

-- GET /v1/horizon
-- read
SELECT json_build_object('horizon', es_horizon(),
                         'holders', (SELECT coalesce(json_agg(h), '[]') FROM es_horizon_holders h)) AS body,
       'private, no-store' AS "Cache-Control";

-- Categories by name, each found by one index look-up.

-- GET /v1/categories
-- read
-- prefix query text ''
-- after query text ''
-- limit query bigint 100
WITH RECURSIVE
    name AS (
        (SELECT es_category(e.stream) AS category FROM es_events e
          WHERE es_category(e.stream) >= :prefix AND es_category(e.stream) > :after
          ORDER BY es_category(e.stream) LIMIT 1)
        UNION ALL
        SELECT (SELECT es_category(e.stream) FROM es_events e
                 WHERE es_category(e.stream) > n.category
                 ORDER BY es_category(e.stream) LIMIT 1)
          FROM name n
         WHERE starts_with(n.category, :prefix)),
    page AS (
        SELECT n.category FROM name n
         WHERE starts_with(n.category, :prefix) LIMIT least(greatest(:limit, 1), 1000)),
    listed AS MATERIALIZED (
        SELECT p.category, l.position AS last_position, l.stream AS last_stream, l.type AS last_type,
               l.recorded_at AS last_recorded_at
          FROM page p
         CROSS JOIN LATERAL (SELECT e.position, e.stream, e.type, e.recorded_at FROM es_events e
                              WHERE es_category(e.stream) = p.category
                              ORDER BY e.position DESC LIMIT 1) l)
SELECT coalesce(json_agg(l ORDER BY l.category), '[]') AS body,
       'private, no-cache' AS "Cache-Control",
       CASE WHEN count(*) = least(greatest(:limit, 1), 1000) THEN max(l.category) END AS "next:after"
  FROM listed l;
