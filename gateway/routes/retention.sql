-- Removals, and the rules by which workers remove events.
--
-- Intervals are numbers of seconds.

-- GET /v1/removals
-- read
-- stream query text
-- before_id query bigint
-- limit query bigint 100
WITH page AS MATERIALIZED (
        SELECT r.id, r.action, r.stream, r.position, lower(r.versions) AS first_version,
               upper(r.versions) - 1 AS last_version, r.removed, r.removed_at, r.removed_by, r.metadata
          FROM es_removals r
         WHERE (:stream IS NULL OR r.stream = :stream)
           AND r.id < coalesce(:before_id, 9223372036854775807)
         ORDER BY r.id DESC LIMIT least(greatest(:limit, 1), 1000))
SELECT coalesce(json_agg(p), '[]') AS body,
       'private, no-cache' AS "Cache-Control",
       CASE WHEN count(*) = least(greatest(:limit, 1), 1000) THEN min(p.id) END AS "next:before_id"
  FROM page p;

-- GET /v1/retention
-- read
SELECT coalesce(json_agg(r), '[]') AS body,
       'private, no-cache' AS "Cache-Control"
  FROM (SELECT r.category, extract(epoch FROM r.max_age) AS max_age, r.max_count,
               extract(epoch FROM r.max_lag) AS max_lag, r.set_by, r.set_at, r.overdue, r.unseen,
               r.removed, r.held_by, r.held_position, r.held_since,
               r.left_behind, r.left_streams, r.tagged_streams, r.last_error, r.error_detail, r.sqlstate, r.attempts,
               r.failing_since, r.ran_at, r.next_run
          FROM es_retention_status r
         ORDER BY r.category) r;
