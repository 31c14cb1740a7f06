-- Event types: their definitions, and what there is of them in the log.

-- Defined types, and those of the last 10,000 events.

-- GET /v1/types
-- read
WITH recent AS (
        SELECT e.type, count(*) AS recent_events, max(e.position) AS last_position,
               max(e.recorded_at) AS last_recorded_at
          FROM (SELECT e.type, e.position, e.recorded_at FROM es_events e ORDER BY e.position DESC LIMIT 10000) e
         GROUP BY e.type)
SELECT coalesce(json_agg(t), '[]') AS body,
       'private, no-cache' AS "Cache-Control"
  FROM (SELECT coalesce(d.type, r.type) AS type, d.category, d.type IS NOT NULL AS defined, d.schema_version,
               d.description, coalesce(r.recent_events, 0) AS recent_events, r.last_position, r.last_recorded_at
          FROM es_event_types d FULL JOIN recent r ON r.type = d.type
         ORDER BY 1, 2 NULLS FIRST) t;

-- GET /v1/types/{type}
-- read
-- type path text
-- category query text
SELECT row_to_json(t) AS body,
       'private, no-cache' AS "Cache-Control"
  FROM es_describe_event_type(:type, :category) t;

-- The newest events of a type among the last 100,000 positions, so that a rare type does not read the whole log.

-- GET /v1/types/{type}/samples
-- read
-- type path text
-- limit query bigint 5
SELECT coalesce(json_agg(e), '[]') AS body,
       'private, no-cache' AS "Cache-Control"
  FROM (SELECT e.position, e.version, e.recorded_at, e.occurred_at, e.id, e.stream, e.type, e.data, e.metadata, e.tags,
               translate(encode(e.body, 'base64'), E'\n', '') AS body
          FROM es_query(jsonb_build_array(jsonb_build_object('types', jsonb_build_array(:type))),
                        greatest((SELECT es_horizon()) - 100000, 0),
                        least(greatest(:limit, 1), 100), true) e) e;

-- Functions that fold events, and that the role may call.

-- GET /v1/reducers
-- read
SELECT coalesce(json_agg(r), '[]') AS body,
       'private, no-cache' AS "Cache-Control"
  FROM (SELECT format('%I.%I', n.nspname, p.proname) AS reducer, obj_description(p.oid, 'pg_proc') AS description
          FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
         WHERE p.pronargs = 2 AND p.proargtypes[0] = 'jsonb'::regtype
           AND p.proargtypes[1] = 'es_recorded_event'::regtype
           AND p.prorettype = 'jsonb'::regtype AND p.prokind = 'f' AND NOT p.proretset
           AND has_schema_privilege(n.oid, 'USAGE') AND has_function_privilege(p.oid, 'EXECUTE')
         ORDER BY 1) r;
