-- The objects that bench/instructions calls, beside those of setup.sql.
INSERT INTO es_import (stream, type, data)
SELECT 'short-' || s, 'deposited', jsonb_build_object('amount', i, 'note', repeat('x', 150))
  FROM generate_series(1, 100) i, generate_series(1, 100) s;
INSERT INTO es_import (stream, type, data)
SELECT category || s, 'deposited', jsonb_build_object('amount', i, 'note', repeat('x', 150))
  FROM generate_series(1, 20) i, generate_series(1, 100) s, unnest('{account-,decided-}'::text[]) category;
INSERT INTO raw_events (version, stream, type, data)
SELECT version, stream, type, data FROM es_events WHERE stream ~ '^(short|decided)-' OR stream ~ '^account-\d{1,7}$' ORDER BY position;
VACUUM (ANALYZE) es_events;
VACUUM (ANALYZE) raw_events;

CREATE FUNCTION deposit(state jsonb, command jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
    RETURN jsonb_build_array(jsonb_build_object('type', 'deposited', 'data', command));
END $$;
SELECT es_create_subscription('counted', category => 'long');
