-- The log: pages, queries, single events, conditional appends, and what an event stream sends.
--
-- Forward reads stop at the horizon, so that a reader that goes on after the last position misses nothing.
-- The filter is a category, types, tags and a query, and an event must match all that are given.  Types and tags make
-- a query of one item.  Tags beside a query become tags of each of its items.  A category beside a query, or types
-- beside a query, are compared with what the query finds.
--
-- Each branch of a UNION ALL is for one kind of filter: the conditions on parameters alone are evaluated first, and a
-- branch without need is not executed.
--
-- A page ends with the event that makes its data, metadata and bodies larger than 8 MiB, as they are stored.

-- GET /v1/events
-- read
-- category query text
-- types query text[]
-- tags query text[]
-- query query jsonb
-- after_position query bigint 0
-- before_position query bigint
-- backward query boolean false
-- limit query bigint 100
WITH found AS (
        SELECT e.* FROM es_read(:after_position, least(greatest(:limit, 1), 1000)) e
         WHERE NOT :backward
           AND coalesce(:category, to_jsonb(:types)::text, to_jsonb(:tags)::text, :query::text) IS NULL
        UNION ALL
        SELECT e.* FROM es_read_category(:category, :after_position, least(greatest(:limit, 1), 1000), :types) e
         WHERE NOT :backward AND :category IS NOT NULL AND :tags IS NULL AND :query IS NULL
        UNION ALL
        (SELECT e.*
           FROM es_read(
                    :after_position,
                    CASE WHEN :category IS NULL AND (:query IS NULL OR :types IS NULL)
                        THEN least(greatest(:limit, 1), 1000) END,
                    CASE WHEN :query IS NULL
                        THEN jsonb_build_array(jsonb_strip_nulls(jsonb_build_object('types', :types, 'tags', :tags)))
                        WHEN :tags IS NULL THEN :query
                        ELSE (SELECT jsonb_agg(i || jsonb_build_object('tags',
                                                   coalesce(i->'tags', '[]') || to_jsonb(:tags)))
                                FROM jsonb_array_elements(:query) i) END) e
          WHERE NOT :backward
            AND (:tags IS NOT NULL OR :query IS NOT NULL OR :category IS NULL AND :types IS NOT NULL)
            AND (:category IS NULL OR es_category(e.stream) = :category)
            AND (:query IS NULL OR :types IS NULL OR e.type = ANY (:types)
                 OR e.type IN ('es_stream_deleted', 'es_compacted', 'es_stream_archived')
                    AND e.data->'types' ?| :types)
          LIMIT least(greatest(:limit, 1), 1000))
        UNION ALL
        SELECT e.*
          FROM (SELECT e FROM es_events e
                 WHERE :backward
                   AND coalesce(:category, to_jsonb(:types)::text, to_jsonb(:tags)::text, :query::text) IS NULL
                   AND e.position < coalesce(:before_position, 9223372036854775807)
                   AND e.position <= (SELECT es_horizon())
                 ORDER BY e.position DESC LIMIT least(greatest(:limit, 1), 1000)) stored, es_upcast(stored.e) e
        UNION ALL
        SELECT e.*
          FROM (SELECT e FROM es_events e
                 WHERE :backward AND :tags IS NULL AND :query IS NULL
                   AND es_category(e.stream) = :category AND es_by_index(es_category(e.stream), :category)
                   AND (:types IS NULL OR e.type = ANY (:types)
                        OR e.type IN ('es_stream_deleted', 'es_compacted', 'es_stream_archived')
                           AND e.data->'types' ?| :types)
                   AND e.position < coalesce(:before_position, 9223372036854775807)
                   AND e.position <= (SELECT es_horizon())
                 ORDER BY e.position DESC LIMIT least(greatest(:limit, 1), 1000)) stored, es_upcast(stored.e) e
        UNION ALL
        (SELECT e.*
           FROM es_query(
                    CASE WHEN :query IS NULL
                        THEN jsonb_build_array(jsonb_strip_nulls(jsonb_build_object('types', :types, 'tags', :tags)))
                        WHEN :tags IS NULL THEN :query
                        ELSE (SELECT jsonb_agg(i || jsonb_build_object('tags',
                                                   coalesce(i->'tags', '[]') || to_jsonb(:tags)))
                                FROM jsonb_array_elements(:query) i) END,
                    0,
                    CASE WHEN :category IS NULL AND (:query IS NULL OR :types IS NULL)
                        THEN least(greatest(:limit, 1), 1000) END,
                    true, :before_position) e
          WHERE :backward
            AND (:tags IS NOT NULL OR :query IS NOT NULL OR :category IS NULL AND :types IS NOT NULL)
            AND (:category IS NULL OR es_category(e.stream) = :category)
            AND (:query IS NULL OR :types IS NULL OR e.type = ANY (:types)
                 OR e.type IN ('es_stream_deleted', 'es_compacted', 'es_stream_archived')
                    AND e.data->'types' ?| :types)
          LIMIT least(greatest(:limit, 1), 1000))),
    sized AS (
        SELECT f.*, sum(pg_column_size(f.data) + coalesce(pg_column_size(f.metadata), 0)
                        + coalesce(pg_column_size(f.body), 0))
                        OVER (ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS bytes_before
          FROM found f),
    page AS MATERIALIZED (
        SELECT s.position, s.version, s.recorded_at, s.occurred_at, s.id, s.stream, s.type, s.data, s.metadata, s.tags,
               translate(encode(s.body, 'base64'), E'\n', '') AS body
          FROM sized s
         WHERE coalesce(s.bytes_before, 0) < 8388608),
    ends AS (SELECT count(*) = least(greatest(:limit, 1), 1000)
                        OR sum(pg_column_size(p.data) + coalesce(pg_column_size(p.metadata), 0)
                               + coalesce(pg_column_size(p.body), 0)) >= 8388608 AS is_full,
                    min(p.position) AS first, max(p.position) AS last FROM page p)
SELECT (SELECT coalesce(json_agg(p), '[]') FROM page p) AS body,
       CASE WHEN EXISTS (SELECT FROM es_personal_attributes) THEN 'private, no-store'
            ELSE 'private, no-cache' END AS "Cache-Control",
       CASE WHEN :backward AND e.is_full THEN e.first END AS "next:before_position",
       CASE WHEN NOT :backward AND e.is_full THEN e.last END AS "next:after_position",
       CASE WHEN :backward AND e.last IS NOT NULL THEN e.last END AS "prev:after_position",
       CASE WHEN NOT :backward AND e.first IS NOT NULL THEN e.first END AS "prev:before_position",
       CASE WHEN e.first IS NOT NULL THEN (NOT :backward)::text END AS "prev:backward"
  FROM ends e;

-- GET /v1/events
-- read follow
-- category query text
-- types query text[]
-- tags query text[]
-- query query jsonb
-- after_position query bigint 0
WITH upto AS MATERIALIZED (SELECT es_horizon() AS position),
    page AS MATERIALIZED (
        SELECT e.position, e.version, e.recorded_at, e.occurred_at, e.id, e.stream, e.type, e.data, e.metadata, e.tags,
               translate(encode(e.body, 'base64'), E'\n', '') AS body
          FROM upto, es_read(CASE WHEN upto.position >= 0 THEN :after_position END, :batch) e
         WHERE coalesce(:category, to_jsonb(:types)::text, to_jsonb(:tags)::text, :query::text) IS NULL
        UNION ALL
        SELECT e.position, e.version, e.recorded_at, e.occurred_at, e.id, e.stream, e.type, e.data, e.metadata, e.tags,
               translate(encode(e.body, 'base64'), E'\n', '')
          FROM upto, es_read_category(:category, CASE WHEN upto.position >= 0 THEN :after_position END, :batch,
                                      :types) e
         WHERE :category IS NOT NULL AND :tags IS NULL AND :query IS NULL
        UNION ALL
        (SELECT e.position, e.version, e.recorded_at, e.occurred_at, e.id, e.stream, e.type, e.data, e.metadata, e.tags,
                translate(encode(e.body, 'base64'), E'\n', '')
           FROM upto, es_read(
                    CASE WHEN upto.position >= 0 THEN :after_position END,
                    CASE WHEN :category IS NULL AND (:query IS NULL OR :types IS NULL) THEN :batch END,
                    CASE WHEN :query IS NULL
                        THEN jsonb_build_array(jsonb_strip_nulls(jsonb_build_object('types', :types, 'tags', :tags)))
                        WHEN :tags IS NULL THEN :query
                        ELSE (SELECT jsonb_agg(i || jsonb_build_object('tags',
                                                   coalesce(i->'tags', '[]') || to_jsonb(:tags)))
                                FROM jsonb_array_elements(:query) i) END) e
          WHERE (:tags IS NOT NULL OR :query IS NOT NULL OR :category IS NULL AND :types IS NOT NULL)
            AND (:category IS NULL OR es_category(e.stream) = :category)
            AND (:query IS NULL OR :types IS NULL OR e.type = ANY (:types)
                 OR e.type IN ('es_stream_deleted', 'es_compacted', 'es_stream_archived')
                    AND e.data->'types' ?| :types)
          LIMIT :batch))
SELECT p.position, row_to_json(p)::text AS body FROM page p
UNION ALL
SELECT u.position, NULL FROM upto u WHERE (SELECT count(*) FROM page) < :batch;

-- The id is a UUID, or the event's position.

-- GET /v1/events/{id}
-- read
-- id path text
SELECT f.body,
       '"' || md5(f.body) || '"' AS "ETag",
       CASE WHEN EXISTS (SELECT FROM es_personal_attributes) THEN 'private, no-store'
            ELSE 'private, max-age=300' END AS "Cache-Control",
       'Authorization' AS "Vary"
  FROM (SELECT row_to_json(e)::text AS body
          FROM (SELECT e.position, e.version, e.recorded_at, e.occurred_at, e.id, e.stream, e.type, e.data, e.metadata,
                       e.tags, translate(encode(e.body, 'base64'), E'\n', '') AS body
                  FROM es_event(CASE WHEN :id !~ '^[0-9]{1,18}$' THEN :id::uuid END) e
                UNION ALL
                SELECT e.position, e.version, e.recorded_at, e.occurred_at, e.id, e.stream, e.type, e.data, e.metadata,
                       e.tags, translate(encode(e.body, 'base64'), E'\n', '')
                  FROM (SELECT e FROM es_events e
                         WHERE e.position = CASE WHEN :id ~ '^[0-9]{1,18}$' THEN :id::bigint END) stored,
                       es_upcast(stored.e) e) e) f;

-- Reads what a decision is based on: nothing that matches comes later at or before the last position, so that
-- a conditional append can take it.

-- POST /v1/query
-- read
-- request body jsonb
WITH sized AS (
        SELECT e.*, sum(pg_column_size(e.data) + coalesce(pg_column_size(e.metadata), 0)
                        + coalesce(pg_column_size(e.body), 0))
                        OVER (ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS bytes_before
          FROM es_query(:request->'query',
                        coalesce((:request->>'after_position')::bigint, 0),
                        least(greatest(coalesce((:request->>'limit')::bigint, 1000), 1), 10000),
                        coalesce((:request->>'backward')::boolean, false),
                        (:request->>'before_position')::bigint) e)
SELECT coalesce(json_agg(p), '[]') AS body,
       'private, no-cache' AS "Cache-Control"
  FROM (SELECT s.position, s.version, s.recorded_at, s.occurred_at, s.id, s.stream, s.type, s.data, s.metadata, s.tags,
               translate(encode(s.body, 'base64'), E'\n', '') AS body
          FROM sized s
         WHERE coalesce(s.bytes_before, 0) < 8388608) p;

-- POST /v1/append
-- write
-- request body jsonb
SELECT 201 AS status,
       json_build_object('first_position', a.first_position, 'position', a.position) AS body,
       '/v1/events/' || a.first_position AS "Location"
  FROM es_append_if(:request->'events', :request->'query',
                    coalesce((:request->>'after_position')::bigint, 0)) a;

-- Executes a command on the state of the events that match a query.

-- POST /v1/commands/{decider}
-- write
-- decider path text
-- request body jsonb
-- reducer query text
-- idempotency_key header uuid
SELECT CASE WHEN x.position IS NULL THEN 200 ELSE 201 END AS status,
       json_build_object('first_position', x.first_position, 'position', x.position, 'state', x.state,
                         'events', x.events) AS body,
       '/v1/events/' || x.first_position AS "Location"
  FROM es_decide(
           :request->'query', :decider::es_function, :request->'command', :reducer::es_function,
           CASE WHEN :idempotency_key IS NULL THEN nullif(:request->'metadata', 'null')
                ELSE coalesce(nullif(:request->'metadata', 'null'), '{}')
                     || jsonb_build_object('command_id', :idempotency_key) END,
           coalesce(:request->'initial', '{}')) x;
