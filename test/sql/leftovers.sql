-- The tests before this one, in the order of their names, share a database. What they
-- make they drop: what is left makes another one fail, on another day.
SELECT pg_describe_object(classid, objid, objsubid) AS object
  FROM (SELECT 'pg_class'::regclass, oid, 0 FROM pg_class WHERE relkind IN ('r', 'v', 'm', 'p', 'S', 'f') AND oid >= 16384 AND relpersistence = 'p'
        UNION ALL SELECT 'pg_proc'::regclass, oid, 0 FROM pg_proc WHERE oid >= 16384
        UNION ALL SELECT 'pg_namespace'::regclass, oid, 0 FROM pg_namespace WHERE oid >= 16384 AND nspname !~ '^pg_(toast_)?temp_'
        UNION ALL SELECT 'pg_extension'::regclass, oid, 0 FROM pg_extension WHERE oid >= 16384
        UNION ALL SELECT 'pg_event_trigger'::regclass, oid, 0 FROM pg_event_trigger
        UNION ALL SELECT 'pg_publication'::regclass, oid, 0 FROM pg_publication
        UNION ALL SELECT 'pg_authid'::regclass, oid, 0 FROM pg_authid WHERE oid >= 16384 AND rolname ~ '^(regress_)?es_') AS objects (classid, objid, objsubid)
 ORDER BY 1;
