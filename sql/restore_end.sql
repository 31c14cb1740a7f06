-- The last part of the script: what it has defined itself is known from here on. A
-- session that restores closes the store until the definitions are there.
INSERT INTO es_user_definitions VALUES (es_definitions_baseline());
CREATE CONSTRAINT TRIGGER es_definitions_replay AFTER INSERT OR UPDATE ON es_user_definitions
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION es_definitions_replay();
ALTER TABLE es_user_definitions ENABLE ALWAYS TRIGGER es_definitions_replay;
CREATE EVENT TRIGGER es_definitions_altered ON ddl_command_end
    WHEN TAG IN ('ALTER TABLE', 'CREATE PUBLICATION')
    EXECUTE FUNCTION es_definitions_altered();
ALTER EVENT TRIGGER es_definitions_altered ENABLE ALWAYS;
CREATE EVENT TRIGGER es_publication_altered ON ddl_command_start
    WHEN TAG IN ('ALTER PUBLICATION')
    EXECUTE FUNCTION es_definitions_altered();
ALTER EVENT TRIGGER es_publication_altered ENABLE ALWAYS;
COMMENT ON EVENT TRIGGER es_publication_altered IS 'lets a dump add tables of the extension to a publication that has them already';
COMMENT ON EVENT TRIGGER es_definitions_altered IS 'keeps the triggers of the extension firing in every session';
SELECT es_definitions_close();
