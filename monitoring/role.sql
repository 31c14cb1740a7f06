-- What the exporter's role needs, and no more: it sees counters and states, and no
-- event. In the database that has the extension, with its schema in search_path:
--
--   CREATE ROLE monitoring LOGIN;
--   psql -v role=monitoring -f role.sql mydatabase

-- Other sessions in pg_stat_activity, and the exporter's own queries.
GRANT pg_monitor TO :"role";

GRANT SELECT ON es_stats, es_inbox_stats, es_projection_status, es_subscription_status, es_health, es_position TO :"role";
GRANT EXECUTE ON FUNCTION es_stats(), es_inbox_stats(), es_projection_lag(), es_subscription_lag(), es_health() TO :"role";
GRANT SELECT (id, projection, subscription, topic) ON es_failures TO :"role";
