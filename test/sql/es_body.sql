-- Bodies: handlers, queries and rebuilds get them by their names, and a large one goes both ways
-- in the text protocol.
CREATE EXTENSION eventstore;
CREATE SCHEMA by_type;
CREATE TABLE seen (who text, version bigint, tags text[], body bytea);
CREATE FUNCTION see(event es_recorded_event) RETURNS void LANGUAGE sql
BEGIN ATOMIC
    INSERT INTO seen VALUES ('handler', event.version, event.tags, event.body);
END;
CREATE FUNCTION by_type.on_a(event es_recorded_event) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO seen VALUES ('schema', event.version, event.tags, event.body);
END $$;
CREATE TABLE tagged (LIKE seen);
CREATE TABLE handled (LIKE seen);
CREATE FUNCTION handle(event es_recorded_event) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO handled VALUES ('rebuilt', event.version, event.tags, event.body);
END $$;
SELECT es_create_projection('handler', 'see(es_recorded_event)', mode => 'sync', start_position => NULL);
SELECT es_create_projection('schema', handler_schema => 'by_type', mode => 'sync', start_position => NULL);
SELECT es_create_projection('query', mode => 'sync', start_position => NULL,
    query => 'INSERT INTO seen SELECT ''query'', version, tags, body FROM new_events');
SELECT es_create_projection('async', tables => '{tagged}', start_position => 0,
    query => 'INSERT INTO tagged SELECT ''async'', version, tags, body FROM new_events WHERE tags @> ''{b}''');
SELECT es_create_projection('rebuilt', 'handle(es_recorded_event)', tables => '{handled}', start_position => 0);

-- None, empty, and stored inside and outside of the row
SELECT version FROM es_append_batch('e-1', 'none', '{a,a,a,a}', '{"{}","{}","{}","{}"}',
    tags => ARRAY['["b", "a"]', NULL, '["b"]', NULL]::jsonb[],
    bodies => ARRAY['\x00ff', NULL, '', convert_to(repeat('ä', 100000), 'UTF8')]::bytea[]);
SELECT es_run_projections();
CREATE VIEW compared AS
SELECT who, count(*), bool_and((s.tags, s.body) IS NOT DISTINCT FROM (e.tags, e.body)) AS same, sum(octet_length(s.body)) AS bytes
  FROM (TABLE seen UNION ALL TABLE tagged UNION ALL TABLE handled) AS s LEFT JOIN es_load('e-1') AS e USING (version)
 GROUP BY who ORDER BY who;
SELECT * FROM compared;
UPDATE tagged SET body = NULL;
UPDATE handled SET body = NULL, tags = NULL;
SELECT es_rebuild_projection('async'), es_rebuild_projection('rebuilt');
SELECT * FROM compared;

-- es_rewrite leaves tags and body.
SELECT es_rewrite(id, '{"n": 1}') IS NOT NULL FROM es_load('e-1');
SELECT who, same FROM compared;

-- 8 MiB to the client in its hexadecimal form, and back as an argument
SELECT count(es_drop_projection(name)) FROM unnest('{handler,schema,query,async,rebuilt}'::text[]) AS name;
SELECT es_create_subscription('s', category => 'large');
SELECT version FROM es_append('large-1', 'none', 'a', tags => '{b}', body => decode(repeat(md5('x'), 512 * 1024), 'hex'));
SELECT token, body, octet_length(body) FROM es_poll('s') \gset
SELECT :'octet_length' AS bytes, length(:'body') AS text;
SELECT version FROM es_append('large-2', 'none', 'a', body => :'body');
SELECT count(DISTINCT sha256(body)), count(*) FROM es_read_category('large');
SELECT es_ack('s', :token) IS NOT NULL AS acknowledged;

SET client_min_messages = warning;
DROP EXTENSION eventstore CASCADE;
DROP SCHEMA by_type CASCADE;
DROP TABLE seen, tagged, handled;
