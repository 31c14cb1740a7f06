-- The view es_health.  Each function of the files health_<subject>.sql finds the problems of one
-- subject.  Only the owner may execute them: es_health() in C runs them as the
-- owner of the log, and shows a caller what it may see.
--
-- Rules for all: the log is read by an index and a limit, never scanned, and failures
-- are counted up to a hundred.  Arguments have exactly the types of pg_catalog's
-- functions and operators (test/pgtap/security-create.sql).  Names are printed with
-- their schemas, as es_health() runs with pg_catalog alone in the search_path.
--
-- A remedy may be run without much thought, so no role must be able to place one.  Code
-- is proposed instead of other code only if its owner could act as the role that will
-- run it anyway, and a GRANT only if the error was not raised by code of users.

-- In C: a reader may look, but may not execute the functions above.
CREATE FUNCTION es_health(
    OUT urgency int, OUT problem text, OUT object text, OUT since timestamptz, OUT message text, OUT remedy text, OUT remedy_by text)
    RETURNS SETOF record AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE ROWS 10;
REVOKE EXECUTE ON FUNCTION es_health() FROM PUBLIC;

CREATE VIEW es_health AS
    SELECT * FROM es_health() h ORDER BY h.urgency, h.since, h.problem, h.object;

COMMENT ON FUNCTION es_health() IS 'rows of the view es_health';
COMMENT ON VIEW es_health IS 'what needs a human, the most urgent first, and the statement that remedies it; empty when all is well';
COMMENT ON COLUMN es_health.urgency IS '1: the most urgent';
COMMENT ON COLUMN es_health.problem IS 'what kind of problem it is, a fixed word';
COMMENT ON COLUMN es_health.object IS 'what has it';
COMMENT ON COLUMN es_health.since IS 'since when, as far as known';
COMMENT ON COLUMN es_health.message IS 'what is wrong, where, and what can be done';
COMMENT ON COLUMN es_health.remedy IS 'statement that remedies it; null: no statement does, the message says what to do';
COMMENT ON COLUMN es_health.remedy_by IS 'role that must run it; null: any operator';
