-- Stores the events from :first to :last of the plan, and the late ones.
\ir mixed-plan.sql
SELECT format('INSERT INTO message_store.messages (stream_name, position, type, data, metadata, id)
    SELECT stream, version - 1, type, data, metadata, gen_random_uuid() FROM %s ORDER BY i', source)
  FROM pg_temp.sources(:first, :last) \gexec
