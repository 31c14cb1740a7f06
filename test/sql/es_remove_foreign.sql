-- es_remove_foreign_streams: a store that was split removes the streams of the other half.
SET client_min_messages = warning;
CREATE EXTENSION eventstore;
\set SHOW_CONTEXT never

-- s-2 and s-4 have slots below 512, s-1 and s-3 above
SELECT count(es_append(s, 'any', t)) FROM unnest('{s-1,s-2,s-3,s-4}'::text[]) s, unnest('{a,b}'::text[]) t;
SELECT version FROM es_append('s-4', 'any', 'c', tags => '{t}');
SELECT archived FROM es_archive_stream('s-2');

-- Refusals
SELECT * FROM es_remove_foreign_streams();
SELECT es_set_slots('{}');
SELECT * FROM es_remove_foreign_streams(force => true);
SELECT es_set_slots('{[512,1024)}');
SELECT * FROM es_remove_foreign_streams(-1);
SELECT * FROM es_remove_foreign_streams(NULL);
BEGIN READ ONLY;
SELECT * FROM es_remove_foreign_streams();
ROLLBACK;
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT * FROM es_remove_foreign_streams();
ROLLBACK;
CREATE ROLE regress_foreign;
GRANT USAGE ON SCHEMA public TO regress_foreign;
SET ROLE regress_foreign;
SELECT * FROM es_remove_foreign_streams();
RESET ROLE;

-- A subscription that has not read them holds them
SELECT es_create_subscription('reader');
SELECT streams, events, held_by, more FROM es_remove_foreign_streams();
SELECT es_horizon() AS horizon \gset
SELECT es_seek('reader', :horizon);

-- A dry run counts the events of the log; it removes nothing
SELECT streams, events, held_by, more FROM es_remove_foreign_streams(dry_run => true);
SELECT count(*) FROM es_events;
SELECT streams, events, position = :horizon AS at_end, held_by, more FROM es_remove_foreign_streams();
SELECT streams, events, held_by, more FROM es_remove_foreign_streams();

-- All of them are gone, with tags and the archive; no event says so; the horizon stays
SELECT stream, version, type FROM es_all_events ORDER BY position;
SELECT count(*) FROM es_tags;
SELECT action, stream, position IS NULL AS silent, versions, removed FROM es_removals WHERE action = 'foreign' ORDER BY stream;
SELECT es_horizon() = :horizon AS horizon_stays;
SELECT es_stream_version('s-4'), es_state('s-4', 'es_merge');
SELECT version FROM es_append('s-1', 2, 'c');

-- The slots cannot be widened to what was removed
\set VERBOSITY sqlstate
SELECT version FROM es_append('s-2', 'any', 'a');
\set VERBOSITY default
SELECT es_set_slots('{[0,1024)}');
SELECT es_set_slots(NULL);
SELECT es_set_slots('{[600,1024)}');
SELECT es_slots();

DROP EXTENSION eventstore CASCADE;
REVOKE USAGE ON SCHEMA public FROM regress_foreign;
DROP ROLE regress_foreign;
