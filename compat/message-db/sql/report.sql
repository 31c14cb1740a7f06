-- Counts of messages. Names are sorted as the database sorts, not by their bytes as the log does.
CREATE VIEW stream_summary WITH (security_invoker = true) AS
    SELECT stream_name, count(*) AS message_count, round(count(*) / sum(count(*)) OVER () * 100, 2) AS percent
      FROM messages GROUP BY stream_name ORDER BY stream_name COLLATE "default";
CREATE VIEW type_summary WITH (security_invoker = true) AS
    SELECT type, count(*) AS message_count, round(count(*) / sum(count(*)) OVER () * 100, 2) AS percent
      FROM messages GROUP BY type ORDER BY type COLLATE "default";
CREATE VIEW stream_type_summary WITH (security_invoker = true) AS
    SELECT stream_name, type, count(*) AS message_count, round(count(*) / sum(count(*)) OVER () * 100, 2) AS percent
      FROM messages GROUP BY stream_name, type ORDER BY stream_name COLLATE "default", type COLLATE "default";
CREATE VIEW type_stream_summary WITH (security_invoker = true) AS
    SELECT type, stream_name, count(*) AS message_count, round(count(*) / sum(count(*)) OVER () * 100, 2) AS percent
      FROM messages GROUP BY type, stream_name ORDER BY type COLLATE "default", stream_name COLLATE "default";
CREATE VIEW category_type_summary WITH (security_invoker = true) AS
    SELECT category(stream_name) AS category, type, count(*) AS message_count,
           round(count(*) / sum(count(*)) OVER () * 100, 2) AS percent
      FROM messages GROUP BY category(stream_name), type
     ORDER BY category(stream_name) COLLATE "default", type COLLATE "default";
CREATE VIEW type_category_summary WITH (security_invoker = true) AS
    SELECT type, category(stream_name) AS category, count(*) AS message_count,
           round(count(*) / sum(count(*)) OVER () * 100, 2) AS percent
      FROM messages GROUP BY type, category(stream_name)
     ORDER BY type COLLATE "default", category(stream_name) COLLATE "default";

COMMENT ON VIEW stream_summary IS 'number and share of the messages of each stream';
COMMENT ON VIEW type_summary IS 'number and share of the messages of each type';
COMMENT ON VIEW stream_type_summary IS 'number and share of the messages of each type in each stream';
COMMENT ON VIEW type_stream_summary IS 'number and share of the messages of each stream by type';
COMMENT ON VIEW category_type_summary IS 'number and share of the messages of each type in each category';
COMMENT ON VIEW type_category_summary IS 'number and share of the messages of each category by type';
