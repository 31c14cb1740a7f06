-- Projections: how far they are, and what an operator does with them.
--
-- Intervals are numbers of seconds.

-- GET /v1/projections
-- read
SELECT coalesce(json_agg(s), '[]') AS body,
       'private, no-cache' AS "Cache-Control"
  FROM (SELECT s.name, s.mode, s.state, s.position, s.horizon, s.lag_events, s.lag_seconds, s.lag_is_estimate,
               s.handled, s.events_per_second, s.rebuild_percent,
               extract(epoch FROM s.rebuild_time_left) AS rebuild_time_left,
               s.sqlstate, s.last_error, s.error_detail, s.error_context, s.attempts, s.next_attempt, s.failing_since,
               s.failed_position, s.failed_stream, s.failed_version, s.failed_type, s.failed_event_id, s.parked,
               s.horizon_held_since
          FROM es_projection_status s
         ORDER BY s.name) s;

-- GET /v1/projections/{projection}
-- read
-- projection path text
SELECT row_to_json(s) AS body,
       'private, no-cache' AS "Cache-Control"
  FROM (SELECT s.name, s.mode, s.state, s.position, s.horizon, s.lag_events, s.lag_seconds, s.lag_is_estimate,
               s.handled, s.events_per_second, s.rebuild_percent,
               extract(epoch FROM s.rebuild_time_left) AS rebuild_time_left,
               s.sqlstate, s.last_error, s.error_detail, s.error_context, s.attempts, s.next_attempt, s.failing_since,
               s.failed_position, s.failed_stream, s.failed_version, s.failed_type, s.failed_event_id, s.parked,
               s.horizon_held_since
          FROM es_projection_status s
         WHERE s.name = :projection) s;

-- Answers when the projection has handled the position: a client reads what it has written.

-- GET /v1/projections/{projection}/reached
-- read wait
-- projection path text
-- position query bigint
-- wait query integer 0
SELECT json_build_object('position', :position, 'reached', w) AS body,
       'no-store' AS "Cache-Control"
  FROM es_wait(:projection, :position, '0') w
 WHERE w AND :wait IS NOT NULL;

-- POST /v1/projections/{projection}/pause
-- write
-- projection path text
SELECT 204 AS status FROM es_pause_projection(:projection);

-- POST /v1/projections/{projection}/resume
-- write
-- projection path text
SELECT 204 AS status FROM es_resume_projection(:projection);

-- POST /v1/projections/{projection}/rebuild
-- write background
-- location /v1/projections/{projection}
-- projection path text
-- archived query boolean false
SELECT json_build_object('handled', es_rebuild_projection(:projection, :archived)) AS body;

-- GET /v1/projections/{projection}/skipped
-- read
-- projection path text
SELECT coalesce(json_agg(s), '[]') AS body,
       'private, no-cache' AS "Cache-Control"
  FROM (SELECT s.projection, s.position, s.event_id, s.stream, s.type, s.reason, s.skipped_by, s.skipped_at
          FROM es_visible_skipped_events s
         WHERE s.projection = :projection
         ORDER BY s.position) s
HAVING count(*) > 0 OR EXISTS (SELECT FROM es_projection_status p WHERE p.name = :projection);

-- PUT /v1/projections/{projection}/skipped/{position}
-- write
-- projection path text
-- position path bigint
-- reason query text
SELECT 204 AS status FROM es_skip_event(:projection, :position, :reason);

-- DELETE /v1/projections/{projection}/skipped/{position}
-- write
-- projection path text
-- position path bigint
SELECT 204 AS status FROM es_unskip_event(:projection, :position);
