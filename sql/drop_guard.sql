-- Loads the library, whose hook refuses to drop a log that has events.
CREATE FUNCTION es_guard_drop() RETURNS event_trigger
    AS 'MODULE_PATHNAME' LANGUAGE C;
REVOKE EXECUTE ON FUNCTION es_guard_drop() FROM PUBLIC;
CREATE EVENT TRIGGER es_guard_drop ON ddl_command_start
    WHEN TAG IN ('DROP EXTENSION', 'DROP SCHEMA', 'DROP OWNED')
    EXECUTE FUNCTION es_guard_drop();
ALTER EVENT TRIGGER es_guard_drop ENABLE ALWAYS;

COMMENT ON FUNCTION es_guard_drop() IS 'event trigger: refuses to drop the log while it has events';
COMMENT ON EVENT TRIGGER es_guard_drop IS 'refuses to drop the log while it has events, unless eventstore.allow_drop is on';
