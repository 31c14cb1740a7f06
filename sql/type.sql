CREATE FUNCTION es_digest_string(data jsonb, keys text[]) RETURNS text
    AS 'MODULE_PATHNAME' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;

CREATE FUNCTION es_digest(type text, data jsonb, keys text[]) RETURNS uuid
    AS 'MODULE_PATHNAME' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;

COMMENT ON FUNCTION es_digest_string(jsonb, text[]) IS
    'returns the composite key of an event as text: name=value of each key in order, joined by colons';
COMMENT ON FUNCTION es_digest(text, jsonb, text[]) IS
    'returns the id of an event by its type and composite key: the UUID of version 5 of both, in the namespace for OIDs';

-- Definitions of types of events, which are optional. Upcasters are stored by
-- their signatures.
CREATE TABLE es_event_types (
    type           text COLLATE "C" NOT NULL,
    required       text[] COLLATE "C" NOT NULL,
    composite_key  text[] COLLATE "C",
    attributes     jsonb,
    schema_version int         NOT NULL CHECK (schema_version > 0),
    description    text,
    category       text COLLATE "C",
    defined_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
    UNIQUE NULLS NOT DISTINCT (type, category)
);
CREATE TABLE es_upcasters (
    type           text COLLATE "C" NOT NULL,
    from_version   int         NOT NULL CHECK (from_version > 0),
    upcaster       text        NOT NULL,
    owner          es_role     NOT NULL,
    search_path    text        NOT NULL,
    settings       text[]      NOT NULL DEFAULT '{}',
    category       text COLLATE "C",
    defined_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
    UNIQUE NULLS NOT DISTINCT (type, category, from_version)
);
-- They have no primary key, as the category may be null, and may be published.
ALTER TABLE es_event_types REPLICA IDENTITY FULL;
ALTER TABLE es_upcasters REPLICA IDENTITY FULL;

-- Sessions cache the definitions; every change invalidates the caches.
CREATE FUNCTION es_event_types_changed() RETURNS trigger
    AS 'MODULE_PATHNAME' LANGUAGE C;
REVOKE EXECUTE ON FUNCTION es_event_types_changed() FROM PUBLIC;
CREATE TRIGGER es_event_types_changed AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON es_event_types
    FOR EACH STATEMENT EXECUTE FUNCTION es_event_types_changed();
ALTER TABLE es_event_types ENABLE ALWAYS TRIGGER es_event_types_changed;
CREATE TRIGGER es_event_types_changed AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON es_upcasters
    FOR EACH STATEMENT EXECUTE FUNCTION es_event_types_changed();
ALTER TABLE es_upcasters ENABLE ALWAYS TRIGGER es_event_types_changed;

CREATE FUNCTION es_define_event_type(
    type text, required text[] DEFAULT '{}', composite_key text[] DEFAULT NULL,
    attributes jsonb DEFAULT NULL, schema_version bigint DEFAULT 1, description text DEFAULT NULL,
    category text DEFAULT NULL, personal text[] DEFAULT NULL, subject text DEFAULT NULL)
    RETURNS void AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE;
CREATE FUNCTION es_drop_event_type(type text, category text DEFAULT NULL)
    RETURNS void AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE;
CREATE FUNCTION es_describe_event_type(
    INOUT type text, INOUT category text DEFAULT NULL, OUT required text[], OUT composite_key text[], OUT attributes jsonb,
    OUT schema_version int, OUT description text, OUT upcasters jsonb, OUT personal jsonb)
    AS 'MODULE_PATHNAME' LANGUAGE C STABLE PARALLEL UNSAFE;
CREATE FUNCTION es_define_upcaster(type text, from_version bigint, upcaster es_function, category text DEFAULT NULL)
    RETURNS void AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE;

REVOKE EXECUTE ON FUNCTION es_define_event_type(text, text[], text[], jsonb, bigint, text, text, text[], text) FROM PUBLIC;
REVOKE EXECUTE ON FUNCTION es_drop_event_type(text, text) FROM PUBLIC;
REVOKE EXECUTE ON FUNCTION es_describe_event_type(text, text) FROM PUBLIC;
REVOKE EXECUTE ON FUNCTION es_define_upcaster(text, bigint, es_function, text) FROM PUBLIC;

SELECT pg_catalog.pg_extension_config_dump('es_event_types', '');
SELECT pg_catalog.pg_extension_config_dump('es_upcasters', '');

COMMENT ON TABLE es_event_types IS 'definitions of types of events: what an event of the type must be like';
COMMENT ON COLUMN es_event_types.type IS 'the events'' type';
COMMENT ON COLUMN es_event_types.required IS 'attributes that data must have, not null';
COMMENT ON COLUMN es_event_types.composite_key IS 'attributes of data that make the id of an event without one; null: ids are random';
COMMENT ON COLUMN es_event_types.attributes IS 'kinds of values by the names of attributes; null: any';
COMMENT ON COLUMN es_event_types.schema_version IS 'current schema version';
COMMENT ON COLUMN es_event_types.description IS 'meaning, for people';
COMMENT ON COLUMN es_event_types.category IS 'category for whose streams it is defined; null: all without a definition of their own';
COMMENT ON COLUMN es_event_types.defined_at IS 'time of the last definition';
COMMENT ON TABLE es_upcasters IS 'functions that turn data of one schema version of a type into the next when it is read';
COMMENT ON COLUMN es_upcasters.type IS 'the events'' type';
COMMENT ON COLUMN es_upcasters.from_version IS 'schema version of the data that the function takes';
COMMENT ON COLUMN es_upcasters.upcaster IS 'signature of the function';
COMMENT ON COLUMN es_upcasters.owner IS 'role that defined it and that it runs as';
COMMENT ON COLUMN es_upcasters.search_path IS 'search_path that it runs with, that of its definition';
COMMENT ON COLUMN es_upcasters.settings IS 'settings that change what values mean, as they were when it was defined';
COMMENT ON COLUMN es_upcasters.category IS 'category of the streams, for which the type is defined; null: all for which it is not';
COMMENT ON COLUMN es_upcasters.defined_at IS 'time of the last definition';
COMMENT ON FUNCTION es_event_types_changed() IS 'trigger that notifies all sessions of a change of types or upcasters';
COMMENT ON FUNCTION es_define_event_type(text, text[], text[], jsonb, bigint, text, text, text[], text) IS
    'defines what events of a type must be like, in all categories or in one, or replaces this definition';
COMMENT ON FUNCTION es_drop_event_type(text, text) IS 'removes the definition of a type for all categories, or for one, and its upcasters';
COMMENT ON FUNCTION es_describe_event_type(text, text) IS
    'returns the definition of a type that holds for a category, its upcasters by from_version, and its personal attributes';
COMMENT ON FUNCTION es_define_upcaster(text, bigint, es_function, text) IS
    'defines the function that turns data of a schema version of a type into the next; null removes it';
CREATE FUNCTION es_attribute(data jsonb, attribute text) RETURNS jsonb
    AS 'MODULE_PATHNAME' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;

CREATE FUNCTION es_index_attribute(type text, attribute text) RETURNS regclass
    AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE;
REVOKE EXECUTE ON FUNCTION es_index_attribute(text, text) FROM PUBLIC;
CREATE FUNCTION es_index_type(type text) RETURNS regclass
    AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE;
REVOKE EXECUTE ON FUNCTION es_index_type(text) FROM PUBLIC;

COMMENT ON FUNCTION es_attribute(jsonb, text) IS
    'returns an attribute of data, as indexes contain it; null if there is none, or if it has more than 2048 bytes';
COMMENT ON FUNCTION es_index_attribute(text, text) IS
    'creates the index that finds events of a type by an attribute of their data, and returns it; appends wait meanwhile';
COMMENT ON FUNCTION es_index_type(text) IS
    'creates the index that finds the events of a type in position order, and returns it; appends wait meanwhile';
