-- Streams: their names, pages of their events, states, and appends.
--
-- The version of a stream is its entity tag: GET has ETag: "5", and If-Match: "5" expects the version 5.
-- A rewritten event does not change the version, so a client that must see rewrites asks without If-None-Match.
-- Nor does an erasure. So where attributes are personal, no cache stores events, and none is told that they are
-- unchanged.
--
-- A limit outside 1 to 1,000 counts as the nearer of both.  A page ends with the event that makes its data, metadata
-- and bodies larger than 8 MiB, as they are stored, whatever its limit.

-- Names are found one index look-up each, so that a page costs the same in a log of any size.  The newest are
-- looked for among the last 2,000 events, of the category if one is given.

-- GET /v1/streams
-- read
-- prefix query text ''
-- after query text ''
-- category query text
-- newest query boolean false
-- limit query bigint 100
WITH RECURSIVE
    name AS (
        (SELECT e.stream FROM es_events e
          WHERE NOT :newest AND e.stream >= :prefix AND e.stream > :after
          ORDER BY e.stream LIMIT 1)
        UNION ALL
        SELECT (SELECT e.stream FROM es_events e WHERE e.stream > n.stream ORDER BY e.stream LIMIT 1)
          FROM name n
         WHERE starts_with(n.stream, :prefix)),
    latest AS (
        (SELECT e.stream, e.position FROM es_events e
          WHERE :newest AND :category IS NULL
          ORDER BY e.position DESC LIMIT 2000)
        UNION ALL
        (SELECT e.stream, e.position FROM es_events e
          WHERE :newest AND es_category(e.stream) = :category
          ORDER BY e.position DESC LIMIT 2000)),
    page AS (
        (SELECT n.stream, NULL::bigint AS newest FROM name n
          WHERE starts_with(n.stream, :prefix)
          LIMIT least(greatest(:limit, 1), 1000))
        UNION ALL
        (SELECT l.stream, max(l.position) FROM latest l
          WHERE starts_with(l.stream, :prefix)
          GROUP BY l.stream
          ORDER BY 2 DESC LIMIT least(greatest(:limit, 1), 1000))),
    listed AS MATERIALIZED (
        SELECT p.stream, es_category(p.stream) AS category, l.version, l.position AS last_position,
               l.type AS last_type, l.recorded_at AS last_recorded_at
          FROM page p CROSS JOIN LATERAL es_last_event(p.stream) l)
SELECT coalesce(json_agg(l), '[]') AS body,
       'private, no-cache' AS "Cache-Control",
       CASE WHEN NOT :newest AND count(*) = least(greatest(:limit, 1), 1000) THEN max(l.stream) END AS "next:after"
  FROM listed l;

-- GET /v1/streams/{stream}
-- read
-- stream path text
-- after_version query bigint 0
-- before_version query bigint
-- backward query boolean false
-- limit query bigint 100
SELECT CASE WHEN s.closed THEN 410 ELSE 200 END AS status,
       CASE WHEN s.closed THEN
           json_build_object('type', 'about:blank', 'title', 'Gone', 'status', 410,
                             'detail', format('The stream "%s" was deleted for good.', :stream),
                             'error', true, 'message', format('stream "%s" is closed', :stream), 'sqlstate', 'ES003',
                             'version', s.version)
           ELSE page.body END AS body,
       CASE WHEN s.closed THEN 'application/problem+json' END AS "Content-Type",
       CASE WHEN NOT s.closed THEN '"' || s.version || '"' END AS "ETag",
       CASE WHEN EXISTS (SELECT FROM es_personal_attributes) THEN 'private, no-store'
            ELSE 'private, no-cache' END AS "Cache-Control",
       'Authorization' AS "Vary",
       CASE WHEN NOT s.closed AND :backward AND page.first > 1 THEN page.first END AS "next:before_version",
       CASE WHEN NOT s.closed AND NOT :backward AND page.last < s.version THEN page.last END AS "next:after_version",
       CASE WHEN NOT s.closed AND :backward AND page.last < s.version THEN page.last END AS "prev:after_version",
       CASE WHEN NOT s.closed AND NOT :backward AND page.first > 1 THEN page.first END AS "prev:before_version",
       CASE WHEN s.closed THEN NULL
            WHEN :backward AND page.last < s.version THEN 'false'
            WHEN NOT :backward AND page.first > 1 THEN 'true' END AS "prev:backward"
  FROM (SELECT l.version, l.type = 'es_stream_deleted' AND l.data->'tombstone' = 'true' AS closed
          FROM es_last_event(:stream) l) s,
       (SELECT coalesce(json_agg(e), '[]') AS body, min(e.version) AS first, max(e.version) AS last
          FROM (SELECT z.position, z.version, z.recorded_at, z.occurred_at, z.id, z.stream, z.type, z.data, z.metadata,
                       z.tags, translate(encode(z.body, 'base64'), E'\n', '') AS body
                  FROM (SELECT f.*, sum(pg_column_size(f.data) + coalesce(pg_column_size(f.metadata), 0)
                                        + coalesce(pg_column_size(f.body), 0))
                                        OVER (ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS bytes_before
                          FROM (SELECT l.*
                                  FROM es_load(:stream, :after_version, least(greatest(:limit, 1), 1000)) l
                                 WHERE NOT :backward
                                UNION ALL
                                SELECT l.*
                                  FROM es_load_backward(:stream, :before_version, least(greatest(:limit, 1), 1000)) l
                                 WHERE :backward) f) z
                 WHERE coalesce(z.bytes_before, 0) < 8388608) e) page;

-- POST /v1/streams/{stream}
-- write
-- stream path text
-- events body jsonb
-- if_match header text
-- if_none_match header text
SELECT CASE WHEN a.position IS NULL THEN 200 ELSE 201 END AS status,
       json_build_object('version', a.version, 'position', a.position) AS body,
       '"' || a.version || '"' AS "ETag",
       CASE WHEN a.position IS NOT NULL THEN
           '/v1/streams/'
           || CASE WHEN :stream ~ '^[A-Za-z0-9._~-]+$' THEN :stream
              ELSE regexp_replace(encode(convert_to(:stream, 'UTF8'), 'hex'), '(..)', '%\1', 'g') END
           || '/events/' || a.version END AS "Location"
  FROM es_append_batch(
           :stream,
           CASE WHEN :if_match IS NULL AND :if_none_match IS NULL THEN 'any'
                WHEN :if_match IS NULL AND :if_none_match = '*' THEN 'none'
                WHEN :if_match = '*' THEN 'exists'
                ELSE coalesce(substring(:if_match FROM '^(?:W/)?"([0-9]+)"$'), :if_match, :if_none_match)
           END::es_expected_version,
           CASE jsonb_typeof(:events) WHEN 'object' THEN jsonb_build_array(:events) ELSE :events END) a;

-- Answers 410 for an event that was removed from its stream.

-- GET /v1/streams/{stream}/events/{version}
-- read
-- stream path text
-- version path bigint
WITH found AS MATERIALIZED (
        SELECT row_to_json(e)::text AS body
          FROM (SELECT e.position, e.version, e.recorded_at, e.occurred_at, e.id, e.stream, e.type, e.data, e.metadata,
                       e.tags, translate(encode(e.body, 'base64'), E'\n', '') AS body
                  FROM es_load(:stream, :version - 1, 1) e
                 WHERE e.version = :version) e)
SELECT 200 AS status, f.body, NULL AS "Content-Type",
       '"' || md5(f.body) || '"' AS "ETag",
       CASE WHEN EXISTS (SELECT FROM es_personal_attributes) THEN 'private, no-store'
            ELSE 'private, max-age=300' END AS "Cache-Control",
       'Authorization' AS "Vary"
  FROM found f
UNION ALL
SELECT 410,
       json_build_object('type', 'about:blank', 'title', 'Gone', 'status', 410,
                         'detail', format('The event %s of the stream "%s" was removed.', :version, :stream),
                         'error', true, 'message', 'the event was removed')::text,
       'application/problem+json', NULL, 'private, no-cache', NULL
 WHERE NOT EXISTS (SELECT FROM found)
   AND :version BETWEEN 1 AND es_stream_version(:stream);

-- GET /v1/streams/{stream}/state
-- read
-- stream path text
-- reducer query text
-- version query bigint
-- at_time query timestamptz
-- by_time query text 'recorded'
-- initial query jsonb '{}'
SELECT json_build_object('state', s.state, 'version', s.version) AS body,
       CASE WHEN EXISTS (SELECT FROM es_personal_attributes) THEN 'private, no-store'
            ELSE 'private, no-cache' END AS "Cache-Control"
  FROM es_state(:stream, :reducer::es_function, :initial, :version, :at_time, :by_time) s
 WHERE s.version > 0
    OR EXISTS (SELECT FROM es_last_event(:stream));

-- The state after each of the events after a version.

-- GET /v1/streams/{stream}/history
-- read
-- stream path text
-- reducer query text
-- after_version query bigint 0
-- initial query jsonb '{}'
-- limit query bigint 100
WITH found AS (
        SELECT h.version, h.recorded_at, h.type, h.state
          FROM es_history(:stream, :reducer::es_function, :initial) h
         WHERE h.version > :after_version
         ORDER BY h.version LIMIT least(greatest(:limit, 1), 1000)),
    sized AS (
        SELECT f.*, sum(pg_column_size(f.state))
                        OVER (ORDER BY f.version ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS bytes_before
          FROM found f),
    page AS MATERIALIZED (
        SELECT s.version, s.recorded_at, s.type, s.state FROM sized s WHERE coalesce(s.bytes_before, 0) < 8388608)
SELECT (SELECT coalesce(json_agg(p), '[]') FROM page p) AS body,
       CASE WHEN EXISTS (SELECT FROM es_personal_attributes) THEN 'private, no-store'
            ELSE 'private, no-cache' END AS "Cache-Control",
       CASE WHEN e.last < l.version THEN e.last END AS "next:after_version"
  FROM es_last_event(:stream) l, (SELECT max(p.version) AS last FROM page p) e;

-- POST /v1/streams/{stream}/commands/{decider}
-- write
-- stream path text
-- decider path text
-- command body jsonb
-- reducer query text
-- initial query jsonb '{}'
-- metadata query jsonb
-- idempotency_key header uuid
-- if_match header text
-- if_none_match header text
SELECT CASE WHEN x.position IS NULL THEN 200 ELSE 201 END AS status,
       json_build_object('version', x.version, 'position', x.position, 'state', x.state, 'events', x.events) AS body,
       '"' || x.version || '"' AS "ETag",
       CASE WHEN x.position IS NOT NULL THEN '../events/' || x.version END AS "Location"
  FROM es_execute(
           :stream, :decider::es_function, :command, :reducer::es_function,
           CASE WHEN :idempotency_key IS NULL THEN :metadata
                ELSE coalesce(:metadata, '{}') || jsonb_build_object('command_id', :idempotency_key) END,
           CASE WHEN :if_match IS NULL AND :if_none_match IS NULL THEN 'any'
                WHEN :if_match IS NULL AND :if_none_match = '*' THEN 'none'
                WHEN :if_match = '*' THEN 'exists'
                ELSE coalesce(substring(:if_match FROM '^(?:W/)?"([0-9]+)"$'), :if_match, :if_none_match)
           END::es_expected_version,
           :initial) x;

-- DELETE /v1/streams/{stream}
-- write
-- stream path text
-- tombstone query boolean false
-- reason query text
-- if_match header text
SELECT json_build_object('version', d.version, 'position', d.position, 'removed', d.removed) AS body,
       '"' || d.version || '"' AS "ETag"
  FROM es_delete_stream(
           :stream,
           CASE WHEN :if_match IS NULL THEN 'any'
                WHEN :if_match = '*' THEN 'exists'
                ELSE coalesce(substring(:if_match FROM '^(?:W/)?"([0-9]+)"$'), :if_match)
           END::es_expected_version,
           :tombstone,
           CASE WHEN :reason IS NOT NULL THEN jsonb_build_object('reason', :reason) END) d
 WHERE d.version > 0;
