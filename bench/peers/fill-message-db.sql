-- Stores the events from :first to :last of the plan in plan.sql, as
-- write_message would, which has no form for many messages.
\ir plan.sql
SELECT format('INSERT INTO message_store.messages (stream_name, position, type, data, metadata, id)
    SELECT stream, version - 1, ''deposited'', data, metadata, gen_random_uuid()
      FROM pg_temp.plan(%s, %s) ORDER BY i', first, last) FROM pg_temp.chunks(:first, :last) \gexec
