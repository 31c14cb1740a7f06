-- Stores the events from :first to :last of the plan in plan.sql, as
-- emt_append_to_stream would, which takes the events of one stream only.
\ir plan.sql
SELECT format($$
    INSERT INTO emt_messages (stream_id, stream_position, partition, message_data, message_metadata,
                              message_schema_version, message_type, message_kind, message_id, transaction_id)
    SELECT stream, version, 'emt:default', data, metadata, '1', 'deposited', 'E', gen_random_uuid()::text, pg_current_xact_id()
      FROM pg_temp.plan(%1$s, %2$s) ORDER BY i$$, first, last),
    format($$
    INSERT INTO emt_streams (stream_id, stream_position, partition, stream_type, stream_metadata)
    SELECT stream, max(version), 'emt:default', 'account', '{}'
      FROM pg_temp.plan(%1$s, %2$s) GROUP BY stream
    ON CONFLICT (stream_id, partition, is_archived) DO UPDATE SET stream_position = excluded.stream_position$$, first, last)
  FROM pg_temp.chunks(:first, :last) \gexec
