-- Moves the messages of message-db here. import.sql says how.
--
-- All messages come, with commands and positions of Eventide's consumers, so that clients of message-db go on with the
-- extension eventstore_message_db. A consumer of Eventide keeps its position in a stream such as account:position, or
-- account:position-reports if it has an identifier.
--
-- A writer locks its category, so that positions follow the order of commits in a category alone. Across categories
-- a transaction that is open may bring a lower one: stable_position() waits for it.

\ir import.sql

INSERT INTO old_store.tables VALUES ('message_store.messages');

CREATE VIEW old_store.events AS
SELECT global_position AS position, position + 1 AS version, time AT TIME ZONE 'UTC' AS recorded_at,
       NULL::timestamptz AS occurred_at, stream_name AS stream, type, coalesce(data, 'null') AS data,
       old_store.as_metadata(metadata) AS metadata, id, NULL::text[] AS tags, NULL::bytea AS body
  FROM message_store.messages;

-- Eventide's consumers go on with the message at their position, which is delivered again. A subscription goes on
-- behind it.
CREATE VIEW old_store.consumers AS
SELECT DISTINCT ON (stream_name) stream_name AS name,
       regexp_replace(regexp_replace(split_part(stream_name, '-', 1), '(:|\+)position(?=\+|$)', ''), ':$', '') AS category,
       (data->>'position')::bigint AS position
  FROM message_store.messages
 WHERE split_part(stream_name, '-', 1) ~ '[:+]position(\+|$)' AND jsonb_typeof(data->'position') = 'number'
 ORDER BY stream_name, messages.position DESC;

COMMIT;
