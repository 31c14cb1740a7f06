-- The inbox: messages from outside, each handled once.
--
-- The handler of a message is declared by the database, and never by the request, in a setting of the gateway's role or
-- of the database: a JSON object from "TOPIC/GROUP", or "TOPIC", to the handler's name with its schema.
--
--   ALTER ROLE gateway SET gateway.inbox_handlers = '{"payments/shop": "shop.on_payment"}';

-- No row, and so 404, where no handler is declared.

-- POST /v1/inbox/{topic}/{group}
-- write
-- topic path text
-- group path text
-- payload body text
-- message_id query text
-- idempotency_key header text
-- metadata query jsonb '{}'
-- content_type header text
-- max_retries query bigint
-- retry_count query bigint 0
SELECT json_build_object('result', es_receive(
           :topic, :group, :payload, h.handler::es_function,
           CASE WHEN :content_type IS NULL THEN :metadata
                ELSE jsonb_build_object('content_type', :content_type) || :metadata END,
           :max_retries, :retry_count, coalesce(:message_id, :idempotency_key))) AS body
  FROM (SELECT coalesce(s.handlers->>(:topic || '/' || :group), s.handlers->>:topic) AS handler
          FROM (SELECT nullif(current_setting('gateway.inbox_handlers', true), '')::jsonb AS handlers) s) h
 WHERE h.handler IS NOT NULL;

-- The newest event_time first, those without one last.

-- GET /v1/inbox
-- read
-- entity_id query text
-- topic query text
-- group_id query text
-- event_type query text
-- limit query bigint 20
-- offset query bigint 0
WITH page AS MATERIALIZED (
        SELECT (s.row).*
          FROM (SELECT i AS row, sum(coalesce(octet_length(i.payload), 0))
                           OVER (ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS bytes_before
                  FROM es_inbox(:entity_id, :topic, :group_id, :event_type, least(greatest(:limit, 1), 1000),
                            greatest(:offset, 0)) i) s
         WHERE coalesce(s.bytes_before, 0) < 8388608)
SELECT coalesce(json_agg(p), '[]') AS body,
       'private, no-cache' AS "Cache-Control",
       CASE WHEN count(*) = least(greatest(:limit, 1), 1000) OR sum(octet_length(p.payload)) >= 8388608
           THEN greatest(:offset, 0) + count(*) END AS "next:offset",
       CASE WHEN :offset > 0 THEN greatest(:offset - least(greatest(:limit, 1), 1000), 0) END AS "prev:offset"
  FROM page p;

-- GET /v1/inbox/{id}
-- read
-- id path bigint
SELECT row_to_json(i) AS body,
       'private, no-cache' AS "Cache-Control"
  FROM es_inbox i
 WHERE i.id = :id;
