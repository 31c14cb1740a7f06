-- The role of message-db's users, as its installation makes it. It stays when the extension is dropped.
DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'message_store') THEN
        CREATE ROLE message_store LOGIN;
    END IF;
END $$;

SELECT es_grant('message_store', 'reader'), es_grant('message_store', 'writer');
GRANT USAGE ON SCHEMA message_store TO message_store;
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA message_store TO message_store;
GRANT SELECT ON ALL TABLES IN SCHEMA message_store TO message_store;
GRANT INSERT ON messages TO message_store;
