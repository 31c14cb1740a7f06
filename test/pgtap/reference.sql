-- doc/reference/ and the catalogs say the same: every function, table, view, type and setting
-- of the extension has one entry, with its signature, columns, and COMMENT as the first
-- sentence; nothing else has one.
--
-- An entry is a heading, ### `name` with (table), (view) or (type) behind it for these, and what
-- follows up to the next heading. A function has a paragraph and a signature for each of its forms:
-- the paragraph is the COMMENT with a capital and a full stop. What is not for calling is a row in
-- a table of doc/reference/internal.md.
BEGIN;
SELECT plan(14);
-- Defaults that are intervals are shown in it.
SET LOCAL intervalstyle = postgres;
LOAD 'eventstore';

CREATE TEMP TABLE documents (pages text);
-- The gateway's page is held against its routes (test/gateway/test_openapi.py), and that of another extension against
-- its functions (test/t/142_cluster.pl).
\set doc `ls doc/reference/*.md | grep -v -e /http.md -e /cluster.md | xargs cat`
INSERT INTO documents VALUES (:'doc');

--
-- What the documents say
--
-- A text as it is in one line, without what marks code.
CREATE FUNCTION pg_temp.plain(text text) RETURNS text LANGUAGE sql
    RETURN btrim(regexp_replace(replace(text, '`', ''), '\s+', ' ', 'g'));

CREATE TEMP TABLE entries AS
SELECT m[1] AS name,
       CASE WHEN m[2] IS NOT NULL THEN m[2] WHEN m[1] LIKE '%.%' THEN 'setting' ELSE 'function' END AS kind,
       m[3] AS body
  FROM documents AS d, regexp_split_to_table(d.pages, E'\n(?=#{1,3} )') AS s,
       regexp_match(s, '^### `([^`]+)`(?: \(([a-z]+)\))?\n\n(.*)$') AS m
 WHERE s LIKE '### `%';

CREATE TEMP TABLE internals AS
SELECT r[1] AS name, pg_temp.plain(r[2]) AS comment
  FROM documents AS d, regexp_split_to_table(d.pages, E'\n(?=# )') AS page, regexp_matches(page, '^\| `([^`]+)` \| (.*) \|$', 'gn') AS r
 WHERE page LIKE '# Internal functions%';

CREATE TEMP TABLE forms AS
SELECT e.name, pg_temp.plain(f[1]) AS sentence,
       replace(replace(pg_temp.plain(f[2]), '( ', '('), ' )', ')') AS signature
  FROM entries AS e, regexp_matches(e.body, '((?:[^\n]+\n)+)\n```sql \(signature\)\n([^`]*)\n```', 'g') AS f
 WHERE e.kind = 'function';

CREATE TEMP TABLE columns AS
SELECT e.name, e.kind, c[1] AS column, c[2] AS type, pg_temp.plain(c[3]) AS comment
  FROM entries AS e, regexp_matches(e.body, '^\| `([^`]+)` \| `([^`]+)` \| (.*) \|$', 'gn') AS c
 WHERE e.kind IN ('table', 'view', 'type');

-- The first paragraph.
CREATE FUNCTION pg_temp.first_of(body text) RETURNS text LANGUAGE sql
    RETURN pg_temp.plain(split_part(body, E'\n\n', 1));

--
-- What the catalogs say
--
CREATE TEMP TABLE members AS
SELECT classid, objid FROM pg_depend
 WHERE deptype = 'e' AND refclassid = 'pg_extension'::regclass
   AND refobjid = (SELECT oid FROM pg_extension WHERE extname = 'eventstore');

CREATE FUNCTION pg_temp.sentence(comment text) RETURNS text LANGUAGE sql
    RETURN upper(left(comment, 1)) || substr(comment, 2) || CASE WHEN comment LIKE '%.' THEN '' ELSE '.' END;

CREATE TEMP VIEW functions AS
SELECT p.proname::text AS name, obj_description(p.oid, 'pg_proc') AS comment,
       -- without the types of defaults
       regexp_replace(
           p.proname || '(' || replace(regexp_replace(a.arguments, '(, )?\mOUT .*', ''), 'INOUT ', '') || ')'
           || CASE WHEN p.prokind = 'p' THEN ''
                   WHEN r.columns IS NULL THEN ' RETURNS ' || replace(pg_get_function_result(p.oid), 'timestamp with time zone', 'timestamptz')
                   ELSE ' RETURNS ' || CASE WHEN p.proretset THEN 'SETOF ' ELSE '' END || '(' || r.columns || ')' END,
           '(''[^'']*''|NULL)::[a-z0-9_]+(\[\])?', '\1', 'g') AS signature
  FROM members AS m
  JOIN pg_proc AS p ON p.oid = m.objid
 CROSS JOIN LATERAL (
     SELECT regexp_replace(replace(replace(pg_get_function_arguments(p.oid), 'timestamp with time zone', 'timestamptz'),
                                   '"position"', 'position'), '^IN ', '') AS arguments) AS a
 CROSS JOIN LATERAL (
     SELECT string_agg(p.proargnames[n] || ' ' || replace(format_type(t, NULL), 'timestamp with time zone', 'timestamptz'), ', ' ORDER BY n) AS columns
       FROM unnest(p.proallargtypes) WITH ORDINALITY AS u (t, n)
      WHERE p.proargmodes[n] IN ('o', 'b', 't')) AS r
 WHERE m.classid = 'pg_proc'::regclass;

CREATE TEMP VIEW relations AS
SELECT c.oid, c.relname::text AS name,
       CASE c.relkind WHEN 'r' THEN 'table' WHEN 'v' THEN 'view' WHEN 'S' THEN 'sequence' WHEN 'c' THEN 'type' END AS kind,
       CASE WHEN c.relkind = 'c' THEN obj_description(c.reltype, 'pg_type') ELSE obj_description(c.oid, 'pg_class') END AS comment
  FROM pg_class AS c
  LEFT JOIN pg_type AS t ON t.typrelid = c.oid
 WHERE (('pg_class'::regclass, c.oid) IN (SELECT classid, objid FROM members)
        OR ('pg_type'::regclass, t.oid) IN (SELECT classid, objid FROM members))
   AND c.relkind IN ('r', 'v', 'S', 'c');

CREATE TEMP VIEW objects AS
SELECT name, kind, comment FROM relations WHERE kind <> 'sequence'
 UNION ALL
SELECT t.typname::text, 'type', obj_description(t.oid, 'pg_type')
  FROM members AS m JOIN pg_type AS t ON t.oid = m.objid
 WHERE m.classid = 'pg_type'::regclass AND t.typtype IN ('b', 'd', 'e') AND t.typelem = 0;

CREATE TEMP VIEW attributes AS
SELECT r.name, r.kind, a.attname::text AS column,
       replace(format_type(a.atttypid, a.atttypmod), 'timestamp with time zone', 'timestamptz') AS type,
       col_description(r.oid, a.attnum) AS comment
  FROM relations AS r
  JOIN pg_attribute AS a ON a.attrelid = r.oid AND a.attnum > 0 AND NOT a.attisdropped
 WHERE r.kind <> 'sequence';

CREATE TEMP VIEW settings AS
SELECT name, short_desc,
       'Type: ' || vartype || coalesce(', in ' || unit, '')
       || coalesce(', one of ' || array_to_string(enumvals, ', '), '')
       || '. Default: ' || coalesce(nullif(boot_val, ''), 'empty')
       || coalesce('. From ' || min_val || ' to ' || max_val, '') || '.' AS facts
  FROM pg_settings WHERE name LIKE 'eventstore.%';

--
-- They say the same
--
SELECT cmp_ok((SELECT count(*) FROM entries), '>', 100::bigint, 'doc/reference/ has entries');
SELECT is_empty(
    $$ SELECT name FROM entries WHERE kind NOT IN ('function', 'table', 'view', 'type', 'setting') $$,
    'an entry is a function, a table, a view, a type or a setting');
SELECT bag_eq(
    $$ SELECT name FROM entries WHERE kind = 'function' UNION ALL
       SELECT name FROM internals WHERE name NOT IN (SELECT name FROM relations WHERE kind = 'sequence') $$,
    $$ SELECT DISTINCT name FROM functions $$,
    'every function has one entry, or one row among the internal functions, and nothing else has');
SELECT bag_eq(
    $$ SELECT name, kind FROM entries WHERE kind IN ('table', 'view', 'type') $$,
    $$ SELECT name, kind FROM objects $$,
    'every table, view and type has one entry, and nothing else has');
SELECT bag_eq(
    $$ SELECT name FROM entries WHERE kind = 'setting' $$,
    $$ SELECT name FROM settings $$,
    'every setting has one entry, and nothing else has');
SELECT bag_eq(
    $$ SELECT name FROM internals WHERE name IN (SELECT name FROM relations WHERE kind = 'sequence') $$,
    $$ SELECT name FROM relations WHERE kind = 'sequence' $$,
    'every sequence has one row');
SELECT bag_eq(
    $$ SELECT name, signature FROM forms $$,
    $$ SELECT name, signature FROM functions WHERE name IN (SELECT name FROM entries WHERE kind = 'function') $$,
    'every form of a function has its signature');
SELECT bag_eq(
    $$ SELECT signature, sentence FROM forms $$,
    $$ SELECT signature, pg_temp.sentence(comment) FROM functions WHERE name IN (SELECT name FROM entries WHERE kind = 'function') $$,
    'the first sentence of a function is its comment');
SELECT bag_eq(
    $$ SELECT name, kind, pg_temp.first_of(body) FROM entries WHERE kind IN ('table', 'view', 'type') $$,
    $$ SELECT name, kind, pg_temp.sentence(comment) FROM objects $$,
    'the first sentence of a table, a view or a type is its comment');
SELECT bag_eq(
    $$ SELECT name, kind, "column", type, comment FROM columns
        UNION ALL
       SELECT e.name, e.kind, a.column, a.type, 'as in ' || o[1]
         FROM entries AS e, regexp_match(e.body, '^Columns: those of \[`([^`]+)`\]', 'n') AS o
         JOIN columns AS a ON a.name = o[1] AND a.kind IN ('table', 'view') $$,
    $$ SELECT name, kind, "column", type, comment FROM attributes $$,
    'every column has its type and comment');
SELECT bag_eq(
    $$ SELECT name, pg_temp.first_of(body), substring(replace(body, '`', '') FROM '\n- (Type: [^\n]*)') FROM entries WHERE kind = 'setting' $$,
    $$ SELECT name, short_desc, facts FROM settings $$,
    'every setting has its description, type, default and range');
SELECT bag_eq(
    $$ SELECT name, comment FROM internals $$,
    $$ SELECT name, min(comment) FROM (SELECT name, comment FROM functions UNION ALL
                                       SELECT name, comment FROM relations WHERE kind = 'sequence') AS o
        WHERE name IN (SELECT name FROM internals) GROUP BY name $$,
    'every internal function has its comment');
SELECT is_empty(
    $$ SELECT e.name, a.argument
         FROM entries AS e
         JOIN members AS m ON m.classid = 'pg_proc'::regclass
         JOIN pg_proc AS p ON p.oid = m.objid AND p.proname = e.name,
              unnest(p.proargnames) WITH ORDINALITY AS a (argument, n)
        WHERE e.kind = 'function' AND coalesce(p.proargmodes[a.n], 'i') IN ('i', 'b')
          AND strpos(e.body, '`' || a.argument || '`') = 0 AND e.body !~ 'rguments\*\*[^\n]*: as for `es_' $$,
    'every argument is explained');
SELECT is_empty(
    $$ SELECT name, kind FROM entries WHERE kind <> 'setting' AND body !~ '\nSince [0-9]+\.[0-9]+\.[0-9]+\.' $$,
    'every entry says since when it is there');

SELECT * FROM finish();
ROLLBACK;
