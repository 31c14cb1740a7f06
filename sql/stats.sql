CREATE FUNCTION es_stats(
    OUT category text, OUT appends bigint, OUT events bigint, OUT bytes bigint, OUT conflicts bigint,
    OUT retries bigint, OUT duplicates bigint, OUT lock_waits bigint, OUT lock_wait_time double precision,
    OUT stats_reset timestamptz) RETURNS SETOF record
    AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE STRICT PARALLEL SAFE;
CREATE FUNCTION es_inbox_stats(
    OUT topic text, OUT group_id text, OUT acknowledged bigint, OUT skipped bigint, OUT failed bigint,
    OUT duplicates bigint, OUT errors bigint, OUT stats_reset timestamptz) RETURNS SETOF record
    AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE STRICT PARALLEL SAFE;
CREATE FUNCTION es_stats_reset() RETURNS void
    AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE;

CREATE VIEW es_stats AS SELECT * FROM es_stats();
CREATE VIEW es_inbox_stats AS SELECT * FROM es_inbox_stats();

-- Names of categories and topics are not public.
REVOKE EXECUTE ON FUNCTION es_stats() FROM PUBLIC;
REVOKE EXECUTE ON FUNCTION es_inbox_stats() FROM PUBLIC;
REVOKE EXECUTE ON FUNCTION es_stats_reset() FROM PUBLIC;

COMMENT ON FUNCTION es_stats() IS 'rows of the view es_stats';
COMMENT ON FUNCTION es_inbox_stats() IS 'rows of the view es_inbox_stats';
COMMENT ON FUNCTION es_stats_reset() IS 'sets the counters of this database to zero';
COMMENT ON VIEW es_stats IS 'counters by category; empty unless eventstore is in shared_preload_libraries';
COMMENT ON COLUMN es_stats.category IS 'part of streams'' names before the first -; null: categories without counters of their own';
COMMENT ON COLUMN es_stats.appends IS 'calls that stored events, and rows of es_import';
COMMENT ON COLUMN es_stats.events IS 'stored events';
COMMENT ON COLUMN es_stats.bytes IS 'bytes of their data and metadata, before compression';
COMMENT ON COLUMN es_stats.conflicts IS 'ES001: the stream was at another version than expected';
COMMENT ON COLUMN es_stats.retries IS 'conflicts after which the same session appended to the stream again';
COMMENT ON COLUMN es_stats.duplicates IS 'retries: calls, and rows of es_import, that got their first result';
COMMENT ON COLUMN es_stats.lock_waits IS 'waits of appends for a stream''s lock';
COMMENT ON COLUMN es_stats.lock_wait_time IS 'duration of these waits, in milliseconds';
COMMENT ON COLUMN es_stats.stats_reset IS 'when counting began';
COMMENT ON VIEW es_inbox_stats IS 'results of es_receive, by topic and group; empty unless eventstore is in shared_preload_libraries';
COMMENT ON COLUMN es_inbox_stats.topic IS 'the topic; null: all topics without counters of their own';
COMMENT ON COLUMN es_inbox_stats.group_id IS 'the group; null: all groups without counters of their own';
COMMENT ON COLUMN es_inbox_stats.acknowledged IS 'messages that the handler acknowledged';
COMMENT ON COLUMN es_inbox_stats.skipped IS 'messages for which the handler returned null';
COMMENT ON COLUMN es_inbox_stats.failed IS 'messages whose failure was stored in es_failures';
COMMENT ON COLUMN es_inbox_stats.duplicates IS 'messages that had been handled before';
COMMENT ON COLUMN es_inbox_stats.errors IS 'messages whose error was raised, so that they are received again';
COMMENT ON COLUMN es_inbox_stats.stats_reset IS 'when counting began';
