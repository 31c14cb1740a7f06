-- Copies of the store: what was added to the extension's tables comes along in a dump
-- (doc/internals/copies.md).

-- Raises an error while the store is closed. Row security calls it as the reader.
CREATE FUNCTION es_closed() RETURNS boolean
    AS 'MODULE_PATHNAME' LANGUAGE C STABLE PARALLEL SAFE;

-- The present definitions of what can be added to the tables of the extension. It runs
-- with a search_path of the extension's schema, so that no name of that schema is
-- qualified: that of a table is cut off where the server always has it.
CREATE FUNCTION es_definitions()
    RETURNS TABLE (rank int, kind text, tab text, name text, statement text) LANGUAGE sql STABLE PARALLEL SAFE
BEGIN ATOMIC
    WITH member AS MATERIALIZED (
        SELECT d.classid, d.objid
          FROM pg_extension x
          JOIN pg_depend d ON d.refclassid = 'pg_extension'::regclass::oid AND d.refobjid = x.oid AND d.deptype = 'e'
         WHERE x.extname = 'eventstore'::name),
    tab AS MATERIALIZED (
        SELECT c.oid, c.relname::text AS relname, pg_catalog.format('%I', c.relname) AS quoted,
               pg_catalog.format(' ON %I.%I ', n.nspname, c.relname) AS qualified, pg_catalog.format(' ON %I ', c.relname) AS bare,
               c.relrowsecurity, c.relforcerowsecurity, c.relreplident, c.reloptions, c.reltoastrelid
          FROM member m
          JOIN pg_class c ON c.oid = m.objid
          JOIN pg_namespace n ON n.oid = c.relnamespace
         WHERE m.classid = 'pg_class'::regclass::oid AND c.relkind = 'r'::"char" AND c.relname <> 'es_user_definitions'::name),
    col AS MATERIALIZED (
        SELECT t.relname, pg_catalog.format('ALTER TABLE %s ALTER COLUMN %I', t.quoted, a.attname) AS alter, t.quoted,
               a.attrelid, a.attnum, a.attname::text AS attname, a.attstorage, y.typstorage, a.attcompression,
               coalesce(a.attstattarget::int, -1) AS target, a.attoptions, a.attnotnull, a.attgenerated, a.attidentity
          FROM tab t
          JOIN pg_attribute a ON a.attrelid = t.oid AND a.attnum > 0::smallint AND NOT a.attisdropped
          JOIN pg_type y ON y.oid = a.atttypid),
    policy AS (
        SELECT t.oid AS relid, t.relname, t.quoted, p.oid, p.polrelid, p.polname, p.polpermissive, p.polcmd, p.polroles, p.polqual, p.polwithcheck
          FROM tab t
          JOIN pg_policy p ON p.polrelid = t.oid
         WHERE p.polname <> 'es_closed'::name AND p.polname <> 'es_closed_rows'::name),
    constr AS (
        SELECT t.relname, t.quoted, c.oid, c.conname, c.contype
          FROM tab t
          JOIN pg_constraint c ON c.conrelid = t.oid
         WHERE c.contype::text = ANY ('{c,u,p,x,f}'::text[])),
    index AS (
        SELECT t.relname, t.quoted, t.qualified, t.bare, i.indexrelid, c.relname::text AS index, i.indisreplident,
               pg_catalog.pg_get_indexdef(i.indexrelid) AS def
          FROM tab t
          JOIN pg_index i ON i.indrelid = t.oid AND i.indisvalid
          JOIN pg_class c ON c.oid = i.indexrelid),
    trig AS (
        SELECT t.relname, t.quoted, t.qualified, t.bare, g.oid, g.tgname::text AS tgname, g.tgenabled, pg_catalog.pg_get_triggerdef(g.oid) AS def
          FROM tab t
          JOIN pg_trigger g ON g.tgrelid = t.oid AND NOT g.tgisinternal
         WHERE NOT EXISTS (SELECT FROM member m WHERE m.classid = 'pg_proc'::regclass::oid AND m.objid = g.tgfoid)
            OR g.tgname = 'es_events_accept' AND g.tgenabled = 'A'::"char"),
    rule AS (
        SELECT t.relname, t.quoted, r.oid, r.rulename::text AS rulename, r.ev_enabled, pg_catalog.pg_get_ruledef(r.oid) AS def
          FROM tab t
          JOIN pg_rewrite r ON r.ev_class = t.oid),
    described (classoid, objoid, objsubid, relname, object) AS (
        SELECT 'pg_class'::regclass::oid, t.oid, 0, t.relname, pg_catalog.format('TABLE %s', t.quoted) FROM tab t
        UNION ALL
        SELECT 'pg_class'::regclass::oid, c.attrelid, c.attnum::int, c.relname, pg_catalog.format('COLUMN %s.%I', c.quoted, c.attname) FROM col c
        UNION ALL
        SELECT 'pg_class'::regclass::oid, i.indexrelid, 0, i.relname, pg_catalog.format('INDEX %I', i.index) FROM index i
        UNION ALL
        SELECT 'pg_constraint'::regclass::oid, c.oid, 0, c.relname, pg_catalog.format('CONSTRAINT %I ON %s', c.conname, c.quoted) FROM constr c
        UNION ALL
        SELECT 'pg_trigger'::regclass::oid, t.oid, 0, t.relname, pg_catalog.format('TRIGGER %I ON %s', t.tgname, t.quoted) FROM trig t
        UNION ALL
        SELECT 'pg_rewrite'::regclass::oid, r.oid, 0, r.relname, pg_catalog.format('RULE %I ON %s', r.rulename, r.quoted) FROM rule r
        UNION ALL
        SELECT 'pg_policy'::regclass::oid, p.oid, 0, p.relname, pg_catalog.format('POLICY %I ON %s', p.polname, p.quoted) FROM policy p)
    -- A table that has policies and does not use them says so: the copy must not guess. Of one
    -- that is closed only the restored row knows it.
    SELECT 1, 'row security'::text, t.relname, ''::text,
           pg_catalog.format('ALTER TABLE %s %s ROW LEVEL SECURITY', t.quoted,
               CASE WHEN t.relrowsecurity THEN 'ENABLE' ELSE 'DISABLE' END)
      FROM tab t
     WHERE (t.relrowsecurity OR EXISTS (SELECT FROM policy p WHERE p.relid = t.oid))
       AND NOT EXISTS (SELECT FROM pg_policy p WHERE p.polrelid = t.oid AND p.polname = 'es_closed_rows'::name)
    UNION ALL
    SELECT 2, 'policy', p.relname, p.polname::text,
           pg_catalog.format('CREATE POLICY %I ON %s AS %s FOR %s TO %s', p.polname, p.quoted,
               CASE WHEN p.polpermissive THEN 'PERMISSIVE' ELSE 'RESTRICTIVE' END,
               CASE p.polcmd WHEN 'r'::"char" THEN 'SELECT' WHEN 'a'::"char" THEN 'INSERT' WHEN 'w'::"char" THEN 'UPDATE'
                             WHEN 'd'::"char" THEN 'DELETE' ELSE 'ALL' END,
               -- in the order of names, since oids are others in another cluster
               (SELECT pg_catalog.string_agg(CASE WHEN r.role = 0::oid THEN 'PUBLIC' ELSE pg_catalog.format('%I', pg_catalog.pg_get_userbyid(r.role)) END, ', ' ORDER BY r.role <> 0::oid, pg_catalog.pg_get_userbyid(r.role))
                  FROM pg_catalog.unnest(p.polroles) r (role)))
           || CASE WHEN p.polqual IS NULL THEN ''::text ELSE pg_catalog.format(' USING (%s)', pg_catalog.pg_get_expr(p.polqual, p.polrelid)) END
           || CASE WHEN p.polwithcheck IS NULL THEN ''::text ELSE pg_catalog.format(' WITH CHECK (%s)', pg_catalog.pg_get_expr(p.polwithcheck, p.polrelid)) END
      FROM policy p
    UNION ALL
    SELECT CASE WHEN c.contype = 'f'::"char" THEN 5 ELSE 3 END, 'constraint', c.relname, c.conname::text,
           pg_catalog.format('ALTER TABLE %s ADD CONSTRAINT %I %s', c.quoted, c.conname, pg_catalog.pg_get_constraintdef(c.oid))
      FROM constr c
    UNION ALL
    SELECT 4, 'index', i.relname, i.index,
           pg_catalog.concat(pg_catalog.split_part(i.def, i.qualified, 1), i.bare,
               pg_catalog.substr(i.def, pg_catalog.strpos(i.def, i.qualified) + pg_catalog.length(i.qualified)))
      FROM index i
     WHERE NOT EXISTS (SELECT FROM pg_constraint c WHERE c.conindid = i.indexrelid AND c.contype::text = ANY ('{u,p,x}'::text[]))
    UNION ALL
    SELECT 6, 'identity', t.relname, '',
           pg_catalog.concat('ALTER TABLE ', t.quoted, ' REPLICA IDENTITY ',
               CASE t.relreplident WHEN 'n'::"char" THEN 'NOTHING' WHEN 'f'::"char" THEN 'FULL'
                    ELSE (SELECT pg_catalog.format('USING INDEX %I', i.index) FROM index i WHERE i.relname = t.relname AND i.indisreplident) END)
      FROM tab t
     WHERE t.relreplident <> 'd'::"char"
    UNION ALL
    SELECT 7, 'column', c.relname, c.attname, v.statement
      FROM col c
     CROSS JOIN LATERAL (
         VALUES (CASE WHEN c.attstorage <> c.typstorage THEN
                          pg_catalog.concat(c.alter, ' SET STORAGE ', CASE c.attstorage WHEN 'p'::"char" THEN 'PLAIN' WHEN 'm'::"char" THEN 'MAIN'
                                                                    WHEN 'e'::"char" THEN 'EXTERNAL' ELSE 'EXTENDED' END) END),
                (CASE c.attcompression WHEN 'p'::"char" THEN pg_catalog.concat(c.alter, ' SET COMPRESSION pglz') WHEN 'l'::"char" THEN pg_catalog.concat(c.alter, ' SET COMPRESSION lz4') END),
                (CASE WHEN c.target >= 0 THEN pg_catalog.concat(c.alter, ' SET STATISTICS ', c.target) END),
                (CASE WHEN c.attnotnull AND c.attidentity = ''::"char" THEN pg_catalog.concat(c.alter, ' SET NOT NULL') END),
                ((SELECT pg_catalog.concat(c.alter, ' SET DEFAULT ', pg_catalog.pg_get_expr(d.adbin, d.adrelid))
                    FROM pg_attrdef d
                   WHERE d.adrelid = c.attrelid AND d.adnum = c.attnum AND c.attgenerated = ''::"char" AND c.attidentity = ''::"char"))) v (statement)
     WHERE v.statement IS NOT NULL
    UNION ALL
    -- the server's own options of columns cannot be set
    SELECT 7, 'column', c.relname, c.attname,
           pg_catalog.format('%s SET (%I = %L)', c.alter, pg_catalog.split_part(o.option, '=', 1), pg_catalog.substr(o.option, pg_catalog.strpos(o.option, '=') + 1))
      FROM col c
     CROSS JOIN LATERAL pg_catalog.unnest(c.attoptions) o (option)
     WHERE pg_catalog.left(o.option, 2) = 'n_'
    UNION ALL
    SELECT 8, 'setting', t.relname, o.prefix || pg_catalog.split_part(o.option, '=', 1),
           pg_catalog.format('ALTER TABLE %s SET (%s%I = %L)', t.quoted, o.prefix, pg_catalog.split_part(o.option, '=', 1), pg_catalog.substr(o.option, pg_catalog.strpos(o.option, '=') + 1))
      FROM tab t
     CROSS JOIN LATERAL (
         SELECT ''::text, u.option FROM pg_catalog.unnest(t.reloptions) u (option)
         UNION ALL
         SELECT 'toast.'::text, u.option FROM pg_class c CROSS JOIN LATERAL pg_catalog.unnest(c.reloptions) u (option) WHERE c.oid = t.reltoastrelid) o (prefix, option)
    UNION ALL
    SELECT 9, 'statistics', t.relname, s.stxname::text, pg_catalog.pg_get_statisticsobjdef(s.oid)
      FROM tab t
      JOIN pg_statistic_ext s ON s.stxrelid = t.oid
    UNION ALL
    SELECT 10, 'rule', r.relname, r.rulename, r.def
      FROM rule r
    UNION ALL
    SELECT 11, 'rule', r.relname, r.rulename,
           pg_catalog.format('ALTER TABLE %s %s RULE %I', r.quoted,
               CASE r.ev_enabled WHEN 'D'::"char" THEN 'DISABLE' WHEN 'A'::"char" THEN 'ENABLE ALWAYS' ELSE 'ENABLE REPLICA' END, r.rulename)
      FROM rule r
     WHERE r.ev_enabled <> 'O'::"char"
    UNION ALL
    SELECT 12, 'trigger', t.relname, t.tgname,
           pg_catalog.concat(pg_catalog.split_part(t.def, t.qualified, 1), t.bare,
               pg_catalog.substr(t.def, pg_catalog.strpos(t.def, t.qualified) + pg_catalog.length(t.qualified)))
      FROM trig t
    UNION ALL
    SELECT 13, 'trigger', t.relname, t.tgname,
           pg_catalog.format('ALTER TABLE %s %s TRIGGER %I', t.quoted,
               CASE t.tgenabled WHEN 'D'::"char" THEN 'DISABLE' WHEN 'A'::"char" THEN 'ENABLE ALWAYS' ELSE 'ENABLE REPLICA' END, t.tgname)
      FROM trig t
     WHERE t.tgenabled <> 'O'::"char"
    UNION ALL
    SELECT 14, 'comment', o.relname, o.object, pg_catalog.format('COMMENT ON %s IS %L', o.object, d.description)
      FROM described o
      JOIN pg_description d ON d.classoid = o.classoid AND d.objoid = o.objoid AND d.objsubid = o.objsubid
    UNION ALL
    SELECT 14, 'label', o.relname, o.object, pg_catalog.format('SECURITY LABEL FOR %I ON %s IS %L', l.provider, o.object, l.label)
      FROM described o
      JOIN pg_seclabel l ON l.classoid = o.classoid AND l.objoid = o.objoid AND l.objsubid = o.objsubid
    UNION ALL
    SELECT 15, 'row security', t.relname, 'forced', pg_catalog.format('ALTER TABLE %s FORCE ROW LEVEL SECURITY', t.quoted)
      FROM tab t
     WHERE t.relforcerowsecurity
    UNION ALL
    SELECT 16, 'publication', t.relname, p.pubname::text,
           pg_catalog.concat(pg_catalog.format('ALTER PUBLICATION %I ADD TABLE ONLY %s', p.pubname, t.quoted),
               (SELECT pg_catalog.concat(' (', pg_catalog.string_agg(pg_catalog.format('%I', a.attname), ', ' ORDER BY a.attnum), ')')
                  FROM pg_attribute a WHERE a.attrelid = t.oid AND a.attnum = ANY (r.prattrs::smallint[]) HAVING count(*) > 0),
               ' WHERE (' || pg_catalog.pg_get_expr(r.prqual, r.prrelid) || ')')
      FROM tab t
      JOIN pg_publication_rel r ON r.prrelid = t.oid
      JOIN pg_publication p ON p.oid = r.prpubid;
END;

-- The definitions as they are in a dump: the output reads the catalogs, the input stores
-- the text.
CREATE TYPE es_definitions;

CREATE FUNCTION es_definitions_in(cstring) RETURNS es_definitions
    AS 'MODULE_PATHNAME' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
CREATE FUNCTION es_definitions_out(es_definitions) RETURNS cstring
    AS 'MODULE_PATHNAME' LANGUAGE C STABLE STRICT PARALLEL RESTRICTED;

CREATE TYPE es_definitions (
    INPUT = es_definitions_in,
    OUTPUT = es_definitions_out,
    INTERNALLENGTH = VARIABLE,
    ALIGNMENT = int4,
    STORAGE = extended
);

CREATE FUNCTION es_definitions_baseline() RETURNS es_definitions
    AS 'MODULE_PATHNAME' LANGUAGE C STABLE PARALLEL RESTRICTED;
CREATE FUNCTION es_definitions_arrive(es_definitions) RETURNS boolean
    AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE;
CREATE FUNCTION es_definitions_replay() RETURNS trigger
    AS 'MODULE_PATHNAME' LANGUAGE C;
CREATE FUNCTION es_definitions_close() RETURNS boolean
    AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE;

-- A serial restore loads it last of all tables of ours, by its name.
CREATE TABLE es_user_definitions (
    definitions es_definitions NOT NULL CHECK (es_definitions_arrive(definitions))
);
SELECT pg_catalog.pg_extension_config_dump('es_user_definitions', '');

CREATE FUNCTION es_finish_restore(
    discard boolean DEFAULT false,
    OUT kind text, OUT table_name text, OUT name text, OUT result text, OUT message text, OUT statement text)
    RETURNS SETOF record AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE ROWS 20;

-- ENABLE TRIGGER, as pg_restore --disable-triggers does at its end, would make triggers of
-- ours fire in some sessions only. What a publication was missing for can be replayed.
CREATE FUNCTION es_definitions_altered() RETURNS event_trigger
    AS 'MODULE_PATHNAME' LANGUAGE C;

REVOKE EXECUTE ON FUNCTION es_definitions_altered(), es_definitions(), es_definitions_baseline(), es_definitions_arrive(es_definitions),
    es_definitions_replay(), es_definitions_close(), es_finish_restore(boolean) FROM PUBLIC;

COMMENT ON FUNCTION es_closed() IS
    'raises an error, as the expression of the policy of a closed store';
COMMENT ON FUNCTION es_definitions() IS 'what is defined for the tables of the extension now, a statement each';
COMMENT ON TYPE es_definitions IS 'definitions in a dump';
COMMENT ON FUNCTION es_definitions_in(cstring) IS 'I/O';
COMMENT ON FUNCTION es_definitions_out(es_definitions) IS 'I/O: what was added to the tables of the extension until now';
COMMENT ON FUNCTION es_definitions_baseline() IS 'definitions of the extension itself';
COMMENT ON FUNCTION es_definitions_arrive(es_definitions) IS 'check: definitions that are restored close the store';
COMMENT ON FUNCTION es_definitions_altered() IS
    'event trigger: keeps triggers firing, and replays what belongs to a publication';
COMMENT ON FUNCTION es_definitions_replay() IS 'trigger: replays definitions that are restored';
COMMENT ON FUNCTION es_definitions_close() IS 'closes a new store in a session that restores; returns whether it did';
COMMENT ON FUNCTION es_finish_restore(boolean) IS
    'replays what a restore has left, and opens the store';
COMMENT ON TABLE es_user_definitions IS
    'what was added to the tables of the extension, for dumps: one row whose output is made of the catalogs; and rows that are being restored';
COMMENT ON COLUMN es_user_definitions.definitions IS 'definitions of the extension itself, or of a restored row';
