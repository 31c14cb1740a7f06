-- Personal attributes of events, which are stored encrypted, and the keys of the persons that they are about.

-- Which attributes of a type are about whom. A definition that was given up has no attributes.
CREATE TABLE es_personal_attributes (
    type        text COLLATE "C" NOT NULL,
    category    text COLLATE "C",
    subject     text COLLATE "C",
    attributes  text[] COLLATE "C" NOT NULL,
    defined_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    UNIQUE NULLS NOT DISTINCT (type, category, subject)
);
ALTER TABLE es_personal_attributes REPLICA IDENTITY FULL;
CREATE TRIGGER es_event_types_changed AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON es_personal_attributes
    FOR EACH STATEMENT EXECUTE FUNCTION es_event_types_changed();
ALTER TABLE es_personal_attributes ENABLE ALWAYS TRIGGER es_event_types_changed;
-- Logical replication fires triggers for rows alone.
CREATE TRIGGER es_event_types_changed_row AFTER INSERT OR UPDATE OR DELETE ON es_personal_attributes
    FOR EACH ROW EXECUTE FUNCTION es_event_types_changed();
ALTER TABLE es_personal_attributes ENABLE ALWAYS TRIGGER es_event_types_changed_row;

CREATE TABLE es_subject_keys (
    subject             text COLLATE "C" PRIMARY KEY,
    key                 bytea,
    key_encryption_key  text COLLATE "C",
    created_at          timestamptz NOT NULL DEFAULT clock_timestamp(),
    erased_at           timestamptz,
    CHECK ((key IS NULL) = (erased_at IS NOT NULL)),
    CHECK ((key IS NULL) = (key_encryption_key IS NULL))
);
-- es_health looks which key-encryption keys are needed.
CREATE INDEX es_subject_keys_key_encryption_key_idx ON es_subject_keys (key_encryption_key) WHERE key_encryption_key IS NOT NULL;
-- Sessions cache keys; a change of a row makes them forget all. On a logical replica the first key says that
-- events are encrypted.
CREATE FUNCTION es_subject_keys_changed() RETURNS trigger
    AS 'MODULE_PATHNAME' LANGUAGE C;
REVOKE EXECUTE ON FUNCTION es_subject_keys_changed() FROM PUBLIC;
CREATE TRIGGER es_subject_keys_changed AFTER INSERT OR UPDATE OR DELETE ON es_subject_keys
    FOR EACH ROW EXECUTE FUNCTION es_subject_keys_changed();
ALTER TABLE es_subject_keys ENABLE ALWAYS TRIGGER es_subject_keys_changed;

CREATE TABLE es_erasures (
    subject    text COLLATE "C" PRIMARY KEY,
    erased_at  timestamptz NOT NULL,
    reason     text,
    erased_by  name        NOT NULL
);

SELECT pg_catalog.pg_extension_config_dump('es_personal_attributes', '');
SELECT pg_catalog.pg_extension_config_dump('es_subject_keys', '');
SELECT pg_catalog.pg_extension_config_dump('es_erasures', '');

CREATE FUNCTION es_define_personal_attributes(
    type text, attributes text[], subject text DEFAULT NULL, category text DEFAULT NULL)
    RETURNS void AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE;
CREATE FUNCTION es_sees_personal_data() RETURNS boolean
    AS 'MODULE_PATHNAME' LANGUAGE C STABLE PARALLEL SAFE;
CREATE FUNCTION es_personal_hash(subject text, value text) RETURNS text
    AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE;
CREATE FUNCTION es_rotate_keys(max_keys bigint DEFAULT 1000) RETURNS bigint
    AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE;
REVOKE EXECUTE ON FUNCTION es_define_personal_attributes(text, text[], text, text), es_sees_personal_data(),
    es_personal_hash(text, text), es_rotate_keys(bigint) FROM PUBLIC;

COMMENT ON TABLE es_personal_attributes IS 'attributes of events that are about a person, and where the person is named';
COMMENT ON COLUMN es_personal_attributes.type IS 'the events'' type';
COMMENT ON COLUMN es_personal_attributes.category IS 'category for whose streams it is defined; null: all without a definition of their own';
COMMENT ON COLUMN es_personal_attributes.subject IS 'attribute of data that names the person; null: the stream''s id does';
COMMENT ON COLUMN es_personal_attributes.attributes IS 'attributes of data that are encrypted; none: they were given up';
COMMENT ON COLUMN es_personal_attributes.defined_at IS 'time of the last definition';
COMMENT ON TABLE es_subject_keys IS 'keys of persons, each wrapped by a key-encryption key';
COMMENT ON COLUMN es_subject_keys.subject IS 'name of the person, a pseudonym';
COMMENT ON COLUMN es_subject_keys.key IS 'the wrapped key; null: it was erased';
COMMENT ON COLUMN es_subject_keys.key_encryption_key IS 'fingerprint of the key that wraps it';
COMMENT ON COLUMN es_subject_keys.created_at IS 'when the key was made';
COMMENT ON COLUMN es_subject_keys.erased_at IS 'when it was erased; null: it was not';
COMMENT ON TABLE es_erasures IS 'persons who were erased, to be replayed after a restore of an older backup';
COMMENT ON COLUMN es_erasures.subject IS 'name of the person, a pseudonym';
COMMENT ON COLUMN es_erasures.erased_at IS 'when';
COMMENT ON COLUMN es_erasures.reason IS 'why, as the caller said';
COMMENT ON COLUMN es_erasures.erased_by IS 'role that erased the person';
COMMENT ON FUNCTION es_subject_keys_changed() IS 'trigger that makes all sessions forget keys';
COMMENT ON FUNCTION es_define_personal_attributes(text, text[], text, text) IS
    'defines which attributes of events of a type are about a person, and are encrypted; none discards the definition';
COMMENT ON FUNCTION es_sees_personal_data() IS 'returns true; EXECUTE on it is the privilege to see personal attributes';
COMMENT ON FUNCTION es_personal_hash(text, text) IS
    'returns a hash of a value by the key of a person, for tags; nobody can make it again once the person is erased';
COMMENT ON FUNCTION es_rotate_keys(bigint) IS
    'wraps keys of persons by the first key file; returns how many were wrapped anew, 0 when all are';
