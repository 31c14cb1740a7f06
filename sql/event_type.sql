-- What is known about types of events, for those who want to. Upcasters are kept
-- by their signatures and their owners by their names, as handlers of
-- projections are.
CREATE TABLE es_event_types (
    type           text COLLATE "C" NOT NULL PRIMARY KEY,
    required       text[] COLLATE "C" NOT NULL,
    composite_key  text[] COLLATE "C",
    attributes     jsonb,
    schema_version int         NOT NULL CHECK (schema_version > 0),
    description    text,
    defined_at     timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE TABLE es_upcasters (
    type           text COLLATE "C" NOT NULL,
    from_version   int         NOT NULL CHECK (from_version > 0),
    upcaster       text        NOT NULL,
    owner          name        NOT NULL,
    search_path    text        NOT NULL,
    defined_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (type, from_version)
);

SELECT pg_catalog.pg_extension_config_dump('es_event_types', '');
SELECT pg_catalog.pg_extension_config_dump('es_upcasters', '');

COMMENT ON TABLE es_event_types IS 'types of events that are defined: what an event of the type must be like';
COMMENT ON COLUMN es_event_types.type IS 'the events'' type';
COMMENT ON COLUMN es_event_types.required IS 'attributes of data that must be there and not null';
COMMENT ON COLUMN es_event_types.composite_key IS 'attributes of data that make the id of an event that comes without one; null: it is random';
COMMENT ON COLUMN es_event_types.attributes IS 'what kind of value attributes have, by their names; null: any';
COMMENT ON COLUMN es_event_types.schema_version IS 'the version that events are written as';
COMMENT ON COLUMN es_event_types.description IS 'what it means, for people';
COMMENT ON COLUMN es_event_types.defined_at IS 'when it was defined last';
COMMENT ON TABLE es_upcasters IS 'functions that turn data of one version of a type into the next, when it is read';
COMMENT ON COLUMN es_upcasters.type IS 'the events'' type';
COMMENT ON COLUMN es_upcasters.from_version IS 'version of the data that the function is given';
COMMENT ON COLUMN es_upcasters.upcaster IS 'signature of the function';
COMMENT ON COLUMN es_upcasters.owner IS 'role as which it runs: who defined it';
COMMENT ON COLUMN es_upcasters.search_path IS 'where it finds what it names, as it was when it was defined';
COMMENT ON COLUMN es_upcasters.defined_at IS 'when it was defined last';
