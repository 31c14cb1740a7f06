CREATE VIEW es_import AS
    SELECT stream, type, data, metadata, id, occurred_at FROM es_events WHERE false;
ALTER VIEW es_import ALTER COLUMN data SET DEFAULT '{}';

CREATE FUNCTION es_import_row() RETURNS trigger AS 'MODULE_PATHNAME' LANGUAGE C;
CREATE FUNCTION es_import_flush() RETURNS trigger AS 'MODULE_PATHNAME' LANGUAGE C;
REVOKE EXECUTE ON FUNCTION es_import_row(), es_import_flush() FROM PUBLIC;
CREATE TRIGGER es_import_row INSTEAD OF INSERT ON es_import
    FOR EACH ROW EXECUTE FUNCTION es_import_row();
CREATE TRIGGER es_import_flush AFTER INSERT ON es_import
    FOR EACH STATEMENT EXECUTE FUNCTION es_import_flush();

COMMENT ON VIEW es_import IS
    'INSERT or COPY here appends the rows in order, each with expected version any; always empty to read';
COMMENT ON FUNCTION es_import_row() IS 'trigger of es_import: checks and keeps a row';
COMMENT ON FUNCTION es_import_flush() IS 'trigger of es_import: appends the rows of a statement';
