-- Stores the events from :first to :last of the plan in plan.sql.
\ir plan.sql
SELECT format('INSERT INTO es_import (stream, type, data, metadata)
    SELECT stream, ''deposited'', data, metadata FROM pg_temp.plan(%s, %s) ORDER BY i', first, last) FROM pg_temp.chunks(:first, :last) \gexec
