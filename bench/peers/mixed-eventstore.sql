-- Stores the events from :first to :last of the plan, and the late ones.
\ir mixed-plan.sql
SELECT format('INSERT INTO es_import (stream, type, data, metadata)
    SELECT stream, type, data, metadata FROM %s ORDER BY i', source) FROM pg_temp.sources(:first, :last) \gexec
