-- What needs a human, for the view es_health: key files, and keys of persons that none of them opens.

-- In C, as the files are read there: the fingerprint of the key that wraps new keys, or why there is
-- none, what is wrong with other files, and whether a file has the key with a fingerprint.  None of
-- them returns a key.
CREATE FUNCTION es_health_key_file(OUT fingerprint text, OUT problem text)
    AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE;
CREATE FUNCTION es_health_other_key_files(OUT path text, OUT problem text) RETURNS SETOF record
    AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE ROWS 1;
CREATE FUNCTION es_health_has_key(fingerprint text) RETURNS boolean
    AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE;

-- Key files that cannot be used while personal attributes are defined or keys are there, keys of
-- persons that no file opens, and a rotation that has not ended.  A store without any of it asks
-- for no file.  The first hundred key-encryption keys are looked at.  The index finds each by one
-- step from the one before.
CREATE FUNCTION es_health_personal(delay interval)
    RETURNS TABLE (urgency int, problem text, object text, since timestamptz, message text, remedy text, remedy_by text, owner oid)
    LANGUAGE sql VOLATILE PARALLEL UNSAFE
BEGIN ATOMIC
    WITH RECURSIVE log AS MATERIALIZED (
        SELECT n.nspname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = 'es_events'::regclass::oid),
    wraps (n, fingerprint) AS (
        SELECT 1, (SELECT k.key_encryption_key FROM es_subject_keys k
                    WHERE k.key_encryption_key IS NOT NULL ORDER BY k.key_encryption_key LIMIT 1)
        UNION ALL
        SELECT w.n + 1, (SELECT k.key_encryption_key FROM es_subject_keys k
                          WHERE k.key_encryption_key > w.fingerprint ORDER BY k.key_encryption_key LIMIT 1)
          FROM wraps w
         WHERE w.fingerprint IS NOT NULL AND w.n < 100),
    -- a standby or a logical replica stores nothing itself
    store AS MATERIALIZED (
        SELECT d.defines, pg_catalog.pg_is_in_recovery()
                          OR EXISTS (SELECT FROM pg_subscription_rel r WHERE r.srrelid = 'es_events'::regclass::oid) AS is_copy
          FROM (SELECT EXISTS (SELECT FROM es_personal_attributes a WHERE pg_catalog.cardinality(a.attributes) > 0) AS defines) d
         WHERE d.defines OR EXISTS (SELECT FROM wraps w WHERE w.fingerprint IS NOT NULL)),
    first AS MATERIALIZED (
        SELECT (f.found).fingerprint, (f.found).problem, f.defines, f.is_copy
          FROM (SELECT es_health_key_file() AS found, s.defines, s.is_copy FROM store s OFFSET 0) f),
    wrapped AS MATERIALIZED (
        SELECT w.fingerprint, es_health_has_key(w.fingerprint) AS is_here,
               CASE WHEN c.many > 100 THEN 'More than 100 keys of persons are' WHEN c.many = 1 THEN '1 key of a person is'
                    ELSE c.many::text || ' keys of persons are' END AS keys
          FROM wraps w
         CROSS JOIN LATERAL (
             SELECT count(*) AS many
               FROM (SELECT FROM es_subject_keys k
                      WHERE k.key_encryption_key = w.fingerprint AND es_by_index(k.key_encryption_key, w.fingerprint) LIMIT 101) x) c
         WHERE w.fingerprint IS NOT NULL)
    SELECT CASE WHEN f.defines AND NOT f.is_copy THEN 1 ELSE 3 END, 'key_file_unusable', 'eventstore.key_file', NULL::timestamptz,
           CASE WHEN f.is_copy THEN 'When this server is promoted, appends with personal attributes will be refused'
                WHEN f.defines THEN 'Appends with personal attributes are refused, at least those of new persons'
                ELSE 'No key of a person can be made or rotated' END || ': ' || f.problem,
           NULL::text, NULL::text, NULL::oid
      FROM first f
     WHERE f.problem IS NOT NULL
    UNION ALL
    SELECT 7, 'key_file_unusable', pg_catalog.format('key file "%s"', o.path), NULL,
           pg_catalog.format('eventstore.key_file names it behind another one, and it cannot be used. %s What its key wraps is not opened.', o.problem),
           NULL, NULL, NULL
      FROM first f
     CROSS JOIN es_health_other_key_files() o
    UNION ALL
    SELECT 3, 'key_missing', pg_catalog.format('key-encryption key %s', w.fingerprint), NULL,
           pg_catalog.format('%s wrapped by it, and no key file has it that can be used. What is personal is null for readers, and appends and decisions fail. Name its file in eventstore.key_file, too.',
                             w.keys),
           NULL, NULL, NULL
      FROM wrapped w
     WHERE NOT w.is_here
    UNION ALL
    SELECT 8, 'rotation_unfinished', pg_catalog.format('key-encryption key %s', w.fingerprint), pg_catalog.pg_conf_load_time(),
           pg_catalog.format('%s wrapped by it, and not by %s, the key of the first file. Go on until es_rotate_keys() returns 0. Keep the old file until then.',
                             w.keys, f.fingerprint),
           pg_catalog.format('SELECT %I.es_rotate_keys()', log.nspname), NULL, NULL
      FROM wrapped w
     CROSS JOIN first f
     CROSS JOIN log
     WHERE w.is_here AND w.fingerprint <> f.fingerprint AND NOT f.is_copy
       AND pg_catalog.pg_conf_load_time() < pg_catalog.clock_timestamp() - delay * 60::double precision;
END;

REVOKE EXECUTE ON FUNCTION es_health_key_file(), es_health_other_key_files(), es_health_has_key(text), es_health_personal(interval) FROM PUBLIC;

COMMENT ON FUNCTION es_health_key_file() IS 'part of es_health: the fingerprint of the first key file, or why it cannot be used';
COMMENT ON FUNCTION es_health_other_key_files() IS 'part of es_health: other key files that cannot be used, and why';
COMMENT ON FUNCTION es_health_has_key(text) IS 'part of es_health: whether a key file has the key with a fingerprint';
COMMENT ON FUNCTION es_health_personal(interval) IS 'part of es_health: key files and keys of persons';
