-- Names of streams: category-cardinal+compound. All of it is plain expressions, which the planner inlines.
CREATE FUNCTION hash_64(value varchar) RETURNS bigint
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN ('x' || left(md5(value), 16))::bit(64)::bigint;

CREATE FUNCTION category(stream_name varchar) RETURNS varchar
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN split_part(stream_name, '-', 1);

CREATE FUNCTION is_category(stream_name varchar) RETURNS boolean
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN coalesce(strpos(stream_name, '-') = 0, true);

CREATE FUNCTION id(stream_name varchar) RETURNS varchar
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE WHEN strpos(stream_name, '-') > 0 THEN substr(stream_name, strpos(stream_name, '-') + 1) END;

CREATE FUNCTION cardinal_id(stream_name varchar) RETURNS varchar
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN split_part(id(stream_name), '+', 1);

CREATE FUNCTION message_store_version() RETURNS varchar
    LANGUAGE sql STABLE PARALLEL SAFE
RETURN '1.3.0'::varchar;

COMMENT ON FUNCTION hash_64(varchar) IS 'first 64 bits of the MD5 of a text, as a number';
COMMENT ON FUNCTION category(varchar) IS 'part of a stream''s name before the first -';
COMMENT ON FUNCTION is_category(varchar) IS 'whether a name has no -';
COMMENT ON FUNCTION id(varchar) IS 'part of a stream''s name after the first -; null: a category';
COMMENT ON FUNCTION cardinal_id(varchar) IS 'part of the id before the first +; null: a category';
COMMENT ON FUNCTION message_store_version() IS 'version of message-db whose interface this is';
