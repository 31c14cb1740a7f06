-- Removing events with personal attributes: truncation, rules of retention, deletion, and the archive.
CREATE EXTENSION eventstore;
\set SHOW_CONTEXT never
SET eventstore.snapshot_every = 2;
CREATE FUNCTION code_of(statement text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    detail text;
    hint text;
BEGIN
    EXECUTE statement;
    RETURN NULL;
EXCEPTION WHEN OTHERS THEN
    GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
    RETURN concat_ws(E'\n', SQLSTATE || ': ' || SQLERRM, detail, hint);
END $$;
CREATE VIEW kept AS SELECT stream, version, data, metadata FROM es_read() WHERE stream !~ '^es_' ORDER BY stream, version;
SELECT es_define_event_type('visited', personal => '{ip}');
SELECT es_define_event_type('sent', personal => '{to}', subject => 'recipient');

--
-- A stream whose events have no tags but those of persons is truncated
--
SELECT count(es_append('visitor-1', 'any', 'visited', jsonb_build_object('ip', '10.0.0.' || n, 'n', n))) FROM generate_series(1, 4) n;
SELECT es_append('visitor-1', 4, 'visited', '{"ip": "10.0.0.5"}', id => '00000000-0000-7000-8000-000000000005') IS NOT NULL AS with_id,
       es_append('visitor-1', 5, 'sent', '{"recipient": 2, "to": "Bob"}') IS NOT NULL AS of_another,
       es_append('visitor-1', 6, 'seen') IS NOT NULL AS of_nobody,
       es_append('visitor-2', 'none', 'visited', '{"ip": "10.0.0.9"}') IS NOT NULL AS elsewhere;
-- What a decision by the tag of the person gets, before and after.
CREATE FUNCTION decide(state jsonb, command jsonb) RETURNS jsonb LANGUAGE sql AS $$ SELECT '[]'::jsonb $$;
SELECT events, state FROM es_decide('[{"tags": ["es_subject:1"]}]', 'decide', '{}', 'es_merge');
SELECT es_truncate_stream('visitor-1', 7);
SELECT * FROM kept;
SELECT tag, count(*) FROM es_tags GROUP BY tag ORDER BY tag;
SELECT events, state FROM es_decide('[{"tags": ["es_subject:1"]}]', 'decide', '{}', 'es_merge');
-- What is removed is not stored again by a retry; a retry is known without a key.
SELECT code_of($$SELECT es_append('visitor-1', 4, 'visited', '{"ip": "10.0.0.5"}', id => '00000000-0000-7000-8000-000000000005')$$);
-- The last event stays, whatever it has.
SELECT es_truncate_stream('visitor-2', 100), es_truncate_stream('visitor-3', 100);
SELECT * FROM kept;

--
-- Not if an event has another tag: a condition may ask for that one
--
SELECT es_append('visitor-4', 'any', 'visited', '{"ip": "10.0.0.4"}', tags => '{a,z}') IS NOT NULL AS tagged,
       es_append('visitor-4', 'any', 'visited', '{"ip": "10.0.0.4"}') IS NOT NULL AS last;
SELECT code_of($$SELECT es_truncate_stream('visitor-4', 2)$$);
-- And not for the tag of a person.
SELECT code_of($$SELECT es_append_if('[{"stream": "a-1", "type": "a"}]', '[{"types": ["visited"]}, {"tags": ["a", "es_subject:1"]}]')$$);
SELECT code_of($$SELECT es_append_if('[{"stream": "a-1", "type": "a"}]', '[{"tags": ["es_subject"]}]')$$);

--
-- Rules
--
SELECT count(es_append('visitor-5', 'any', 'visited', jsonb_build_object('ip', '10.0.1.' || n, 'n', n))) FROM generate_series(1, 5) n;
SELECT es_set_retention('visitor', max_count => 1);
SELECT category, streams, events FROM es_run_retention(dry_run => true);
SELECT category, streams, events, more FROM es_run_retention();
SELECT category, streams, events, more FROM es_run_retention();
SELECT tagged_streams FROM es_retention WHERE category = 'visitor';
SELECT stream, data->'n' AS n FROM kept;
SELECT es_set_retention('visitor');

--
-- The other ways: a notice has the tags of the persons
--
SELECT removed FROM es_delete_stream('visitor-4', 'any');
SELECT tags FROM es_last_event('visitor-4');
SELECT archived FROM es_archive_stream('visitor-5');
SELECT tags FROM es_last_event('visitor-5');
SELECT code_of($$SELECT es_compact_stream('visitor-2', 'es_merge')$$);
-- Truncated beyond the notice: erasing finds what the archive has all the same.
SELECT es_append('visitor-5', 'any', 'seen') IS NOT NULL AS more;
SELECT es_truncate_stream('visitor-5', 100) > 0 AS removed;
SELECT data->'ip' AS ip, metadata FROM es_load_archived('visitor-5');
SELECT count(*) > 3 AS reported FROM es_erase_subject('5');
SELECT data->'ip' AS ip, metadata FROM es_load_archived('visitor-5');
-- An event comes back as it was, and is as unreadable.
SELECT archived FROM es_archive_stream('visitor-2');
SELECT count(*) > 3 AS reported FROM es_erase_subject('2');
SELECT es_unarchive_stream('visitor-2');
SELECT version, data, metadata FROM es_load('visitor-2', max_count => 1);
-- Of a person without events any more.
SELECT es_truncate_stream('visitor-1', 100);
SELECT count(*) > 3 AS reported FROM es_erase_subject('1');
SELECT * FROM kept;

DROP VIEW kept;
DROP FUNCTION code_of, decide;
DROP EXTENSION eventstore;
