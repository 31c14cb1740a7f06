-- Failures: events of projections and subscriptions, and messages of the inbox, that could not be handled.

-- GET /v1/failures
-- read
-- projection query text
-- subscription query text
-- topic query text
-- group_id query text
-- stream query text
-- type query text
-- limit query bigint 20
-- offset query bigint 0
WITH page AS MATERIALIZED (
        SELECT (s.row).*
          FROM (SELECT f AS row, sum(coalesce(octet_length(f.payload), 0))
                           OVER (ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS bytes_before
                  FROM es_failures(:projection, :stream, :type, least(greatest(:limit, 1), 1000), greatest(:offset, 0),
                                   :subscription, :topic, :group_id) f) s
         WHERE coalesce(s.bytes_before, 0) < 8388608)
SELECT coalesce(json_agg(p), '[]') AS body,
       'private, no-cache' AS "Cache-Control",
       CASE WHEN count(*) = least(greatest(:limit, 1), 1000) OR sum(octet_length(p.payload)) >= 8388608
           THEN greatest(:offset, 0) + count(*) END AS "next:offset",
       CASE WHEN :offset > 0 THEN greatest(:offset - least(greatest(:limit, 1), 1000), 0) END AS "prev:offset"
  FROM page p;

-- GET /v1/failures/count
-- read
-- projection query text
-- subscription query text
-- topic query text
-- group_id query text
-- stream query text
-- type query text
SELECT json_build_object('count', count(*)) AS body,
       'private, no-cache' AS "Cache-Control"
  FROM es_failures(:projection, :stream, :type, NULL, 0, :subscription, :topic, :group_id) f;

-- GET /v1/failures/{id}
-- read
-- id path bigint
SELECT row_to_json(f) AS body,
       'private, no-cache' AS "Cache-Control"
  FROM es_visible_failures f
 WHERE f.id = :id;

-- Answers 422 if nothing was handled: it failed again.

-- POST /v1/failures/{id}/retry
-- write
-- id path bigint
SELECT CASE WHEN r > 0 THEN 200 ELSE 422 END AS status,
       CASE WHEN r > 0 THEN json_build_object('id', :id, 'handled', r)
       ELSE json_build_object('type', 'about:blank', 'title', 'Unprocessable Content', 'status', 422,
                              'detail', format('Nothing of failure %s was handled: it failed again.', :id),
                              'error', true, 'message', format('failure %s failed again', :id)) END AS body,
       CASE WHEN r = 0 THEN 'application/problem+json' END AS "Content-Type"
  FROM es_retry(:id) r;

-- DELETE /v1/failures/{id}
-- write
-- id path bigint
SELECT 204 AS status FROM es_discard(:id);

-- Retries the failures of the list that the role sees.  One retry handles all of a stream, so that it is called for
-- one of them.

-- POST /v1/failures/retry
-- write
-- request body jsonb
WITH wanted AS MATERIALIZED (
        SELECT min(f.id) AS id, count(*) AS failures
          FROM es_visible_failures f
         WHERE f.id = ANY (ARRAY(SELECT i::bigint FROM jsonb_array_elements_text(:request->'ids') i LIMIT 1000))
         GROUP BY f.projection, f.subscription, f.partition, f.stream,
                  CASE WHEN f.topic IS NOT NULL THEN f.id END)
SELECT json_build_object('failures', coalesce(sum(r.failures), 0), 'handled', coalesce(sum(r.handled), 0)) AS body
  FROM (SELECT w.failures, es_retry(w.id) AS handled FROM wanted w) r;

-- Discards the last of a stream first, as those that only wait behind one are handled when it is discarded.

-- POST /v1/failures/discard
-- write
-- request body jsonb
WITH wanted AS MATERIALIZED (
        SELECT f.id
          FROM es_visible_failures f
         WHERE f.id = ANY (ARRAY(SELECT i::bigint FROM jsonb_array_elements_text(:request->'ids') i LIMIT 1000))
         ORDER BY f.position DESC NULLS LAST, f.id DESC),
    discarded AS MATERIALIZED (SELECT w.id, es_discard(w.id) FROM wanted w)
SELECT json_build_object('discarded', count(*)) AS body FROM discarded d;
