-- Subscriptions: how far they are, polls, acknowledgements.
--
-- Intervals are numbers of seconds.

-- GET /v1/subscriptions
-- read
SELECT coalesce(json_agg(s), '[]') AS body,
       'private, no-cache' AS "Cache-Control"
  FROM (SELECT s.subscription, count(*) AS partitions, min(s.position) AS position, max(s.horizon) AS horizon,
               sum(s.lag_events)::bigint AS lag_events, max(s.lag_seconds) AS lag_seconds,
               bool_or(s.lag_is_estimate) AS lag_is_estimate, sum(s.in_flight)::bigint AS in_flight,
               sum(s.parked)::bigint AS parked, max(extract(epoch FROM s.oldest_parked_age)) AS oldest_parked_age,
               min(s.horizon_held_since) AS horizon_held_since
          FROM es_subscription_status s
         GROUP BY s.subscription
         ORDER BY s.subscription) s;

-- A row for each partition.

-- GET /v1/subscriptions/{subscription}
-- read
-- subscription path text
SELECT json_agg(s) AS body,
       'private, no-cache' AS "Cache-Control"
  FROM (SELECT s.subscription, s.partition, s.consumer, extract(epoch FROM s.lease_left) AS lease_left, s.position,
               s.horizon, s.lag_events, s.lag_seconds, s.lag_is_estimate, s.in_flight, s.parked,
               extract(epoch FROM s.oldest_parked_age) AS oldest_parked_age, s.horizon_held_since
          FROM es_subscription_status s
         WHERE s.subscription = :subscription
         ORDER BY s.partition) s
HAVING count(*) > 0;

-- A member that is mistyped must not be taken as left out: a consumer would get other events than were meant.

-- PUT /v1/subscriptions/{subscription}
-- write
-- subscription path text
-- request body jsonb '{}'
WITH fault AS MATERIALIZED (
        SELECT (SELECT k FROM jsonb_object_keys(:request) k
                 WHERE k <> ALL ('{category,types,start_position,partitions,lease,max_attempts,max_in_flight,query}')
                 LIMIT 1) AS member),
    made AS MATERIALIZED (
        SELECT f.member,
               CASE WHEN f.member IS NULL THEN es_create_subscription(
                   :subscription,
                   CASE jsonb_typeof(:request->'category')
                       WHEN 'array' THEN ARRAY(SELECT jsonb_array_elements_text(:request->'category'))::es_categories
                       WHEN 'string' THEN ARRAY[:request->>'category']::es_categories END,
                   CASE jsonb_typeof(:request->'types')
                       WHEN 'array' THEN ARRAY(SELECT jsonb_array_elements_text(:request->'types')) END,
                   CASE WHEN :request ? 'start_position' THEN (:request->>'start_position')::bigint ELSE 0 END,
                   coalesce((:request->>'partitions')::bigint, 1),
                   make_interval(secs => coalesce((:request->>'lease')::double precision, 30)),
                   coalesce((:request->>'max_attempts')::bigint, 10),
                   coalesce((:request->>'max_in_flight')::bigint, 1000),
                   nullif(:request->'query', 'null'))::text END AS done
          FROM fault f)
SELECT CASE WHEN f.member IS NULL THEN 201 ELSE 422 END AS status,
       CASE WHEN f.member IS NULL THEN
           '/v1/subscriptions/'
           || CASE WHEN :subscription ~ '^[A-Za-z0-9._~-]+$' THEN :subscription
              ELSE regexp_replace(encode(convert_to(:subscription, 'UTF8'), 'hex'), '(..)', '%\1', 'g') END
       END AS "Location",
       CASE WHEN f.member IS NOT NULL THEN 'application/problem+json' END AS "Content-Type",
       CASE WHEN f.member IS NOT NULL THEN
           json_build_object('type', 'about:blank', 'title', 'Unprocessable Content', 'status', 422,
                              'detail', format('The body has a member "%s", which is unknown.', f.member),
                              'error', true, 'message', 'unknown member of the body') END AS body
  FROM made f;

-- DELETE /v1/subscriptions/{subscription}
-- write
-- subscription path text
SELECT 204 AS status FROM es_drop_subscription(:subscription);

-- A poll without events has no row, and is repeated for as long as the client waits.  A token is a string, since it is
-- beyond 2^53, which JavaScript would round.

-- POST /v1/subscriptions/{subscription}/poll
-- write wait
-- subscription path text
-- consumer query text
-- limit query bigint 100
-- after_token query bigint
-- max_bytes query bigint 8388608
-- wait query integer 0
SELECT json_build_object('token', max(p.token)::text, 'partition', max(p.partition),
                         'events', json_agg(p.event)) AS body,
       'no-store' AS "Cache-Control"
  FROM (SELECT p.token, p.partition,
               (SELECT row_to_json(e)
                  FROM (SELECT p.attempt, p.position, p.version, p.recorded_at, p.occurred_at, p.id, p.stream, p.type,
                               p.data, p.metadata, p.tags,
                               translate(encode(p.body, 'base64'), E'\n', '') AS body) e) AS event
          FROM es_poll(:subscription, :consumer, least(greatest(:limit, 1), 1000), '0', :after_token,
                       least(:max_bytes, 67108864)) p
         WHERE :wait IS NOT NULL) p
HAVING count(*) > 0;

-- POST /v1/subscriptions/{subscription}/ack
-- write
-- subscription path text
-- request body jsonb
WITH fault AS MATERIALIZED (
        SELECT (SELECT k FROM jsonb_object_keys(:request) k
                 WHERE k <> ALL ('{token,upto_position}') LIMIT 1) AS member),
    made AS MATERIALIZED (
        SELECT f.member, CASE WHEN f.member IS NULL THEN es_ack(
                   :subscription, (:request->>'token')::bigint, (:request->>'upto_position')::bigint) END AS done
          FROM fault f)
SELECT CASE WHEN f.member IS NULL THEN 200 ELSE 422 END AS status,
       CASE WHEN f.member IS NOT NULL THEN 'application/problem+json' END AS "Content-Type",
       CASE WHEN f.member IS NOT NULL THEN
           json_build_object('type', 'about:blank', 'title', 'Unprocessable Content', 'status', 422,
                              'detail', format('The body has a member "%s", which is unknown.', f.member),
                              'error', true, 'message', 'unknown member of the body')
       ELSE json_build_object('position', f.done) END AS body
  FROM made f;

-- POST /v1/subscriptions/{subscription}/nack
-- write
-- subscription path text
-- request body jsonb
WITH fault AS MATERIALIZED (
        SELECT (SELECT k FROM jsonb_object_keys(:request) k
                 WHERE k <> ALL ('{token,position,reason,action}') LIMIT 1) AS member),
    made AS MATERIALIZED (
        SELECT f.member, CASE WHEN f.member IS NULL THEN es_nack(
                   :subscription, (:request->>'token')::bigint, (:request->>'position')::bigint,
                   :request->>'reason', coalesce(:request->>'action', 'retry')) END AS done
          FROM fault f)
SELECT CASE WHEN f.member IS NULL THEN 200 ELSE 422 END AS status,
       CASE WHEN f.member IS NOT NULL THEN 'application/problem+json' END AS "Content-Type",
       CASE WHEN f.member IS NOT NULL THEN
           json_build_object('type', 'about:blank', 'title', 'Unprocessable Content', 'status', 422,
                              'detail', format('The body has a member "%s", which is unknown.', f.member),
                              'error', true, 'message', 'unknown member of the body')
       ELSE json_build_object('action', f.done) END AS body
  FROM made f;

-- The position must be there, and null says the horizon: nothing that is left out may pass over events.

-- POST /v1/subscriptions/{subscription}/seek
-- write
-- subscription path text
-- request body jsonb
WITH made AS MATERIALIZED (
        SELECT CASE WHEN jsonb_typeof(:request) = 'object' AND :request ? 'position' AND :request - 'position' = '{}'
                   THEN es_seek(:subscription, (:request->>'position')::bigint)::text END AS done)
SELECT CASE WHEN m.done IS NOT NULL THEN 204 ELSE 422 END AS status,
       CASE WHEN m.done IS NULL THEN 'application/problem+json' END AS "Content-Type",
       CASE WHEN m.done IS NULL THEN
           json_build_object('type', 'about:blank', 'title', 'Unprocessable Content', 'status', 422,
                              'detail', 'The body must be an object with the member "position" and no other.',
                              'error', true, 'message', 'the body has not the member "position" alone') END AS body
  FROM made m;
