-- es_alter_subscription: another filter from where each partition is, other settings.
SET client_min_messages = warning;
CREATE EXTENSION eventstore;
CREATE SEQUENCE stream;
CREATE FUNCTION append(streams text) RETURNS bigint LANGUAGE sql AS
    $$ SELECT count(es_append(left(s, 1) || '-' || nextval('stream'), 'any', right(s, 1))) FROM unnest(string_to_array(streams, ' ')) WITH ORDINALITY AS u (s, n) $$;
-- Delivers, and says which events.
CREATE FUNCTION poll(name text, count int DEFAULT 100, after bigint DEFAULT NULL) RETURNS text LANGUAGE sql AS
    $$ SELECT string_agg(position || left(stream, 1) || type || CASE WHEN attempt > 1 THEN '!' ELSE '' END, ' ' ORDER BY position)
         FROM es_poll(name, 'c', count, after_token => after) $$;
CREATE FUNCTION token(name text) RETURNS bigint LANGUAGE sql AS
    $$ SELECT tokens[cardinality(tokens)] FROM es_partitions WHERE subscription = name $$;
CREATE FUNCTION first_token(name text) RETURNS bigint LANGUAGE sql AS
    $$ SELECT tokens[1] FROM es_partitions WHERE subscription = name $$;
CREATE VIEW partition AS
    SELECT position, reached, leased_until IS NOT NULL AS in_flight, uptos, counts, settled, earlier_upto, earlier_categories, earlier_types FROM es_partitions;
CREATE VIEW status AS SELECT lag_events, in_flight, lag_seconds > 0 AS lags FROM es_subscription_status;

-- Nothing in flight: the new filter holds from the checkpoint on. What lies below stays as it is.
SELECT append('aX bX cX');
SELECT es_create_subscription('s', 'a', lease => '1 h');
SELECT poll('s');
SELECT es_ack('s', token('s'));
SELECT es_alter_subscription('s', '{a,b}');
SELECT append('aX bX cX');
SELECT * FROM status;
SELECT poll('s');
SELECT es_ack('s', token('s'));
SELECT * FROM partition;
-- The log was read up to the end already: what the new filter wants there, after the checkpoint, is delivered.
SELECT append('aX cX cX');
SELECT poll('s');
SELECT es_nack('s', token('s'), 7, 'skipped', 'skip');
SELECT append('cX');
SELECT es_alter_subscription('s', 'c');
SELECT poll('s');
SELECT es_ack('s', token('s'));
-- es_seek goes back, and has the new filter.
SELECT es_seek('s', 0);
SELECT poll('s');
SELECT es_seek('s', NULL);

-- In flight: its events keep their token, and can be settled one by one; what follows has the new filter.
SELECT es_alter_subscription('s', all_categories => true, types => '{X}');
SELECT append('aX aY aX aX');
SELECT * FROM partition;
SELECT poll('s', 2);
SELECT es_alter_subscription('s', types => '{Y}');
SELECT append('aX aY');
SELECT * FROM partition;
SELECT * FROM status;
SELECT token('s') IS NOT NULL AS has_token;
SELECT es_nack('s', token('s'), 11, 'bad', 'park');
SELECT es_nack('s', token('s'), 12, 'Y was not delivered', 'skip');
SELECT * FROM partition;
-- Ahead of it the next one is by the new filter; each is acknowledged by its own.
SELECT poll('s', 2, token('s'));
SELECT * FROM status;
SELECT es_ack('s', first_token('s'));
SELECT * FROM partition;
SELECT es_ack('s', token('s'));
SELECT * FROM partition;
SELECT * FROM status;
-- The parked event is of the filter before, and is delivered when it is due.
SELECT position, left(stream, 1) AS category, type FROM es_failures;
SELECT es_retry(id) FROM es_failures;
SELECT poll('s');
SELECT es_ack('s', token('s'));
SELECT count(*) FROM es_failures;

-- A lease that expires: what was in flight is delivered again as it was, then the new filter.
SELECT append('aX aY aX aY');
SELECT poll('s');
SELECT es_alter_subscription('s', types => '{X}');
SELECT append('aX aY aX');
SELECT poll('s', 1);
SELECT poll('s');
SELECT * FROM status;
SELECT es_ack('s', token('s'));
SELECT poll('s');
SELECT es_ack('s', token('s'));
SELECT * FROM partition;

-- Two filters in flight: a third one is refused until the first is settled.
SELECT append('aX aY');
SELECT poll('s');
SELECT es_alter_subscription('s', types => '{Y}');
SELECT es_alter_subscription('s', types => '{X}', category => 'b');
SELECT es_alter_subscription('s', types => '{Y}', all_categories => true);
SELECT append('aY');
SELECT poll('s', 5, token('s'));
SELECT es_alter_subscription('s', all_types => true);
SELECT es_alter_subscription('s', lease => '2 h', max_attempts => 3, max_in_flight => 4);
SELECT es_ack('s', first_token('s'));
SELECT es_alter_subscription('s', all_types => true);
SELECT append('bZ');
SELECT es_ack('s', token('s'));
SELECT poll('s');
SELECT es_ack('s', token('s'));

-- Settings: the next delivery has them.
SELECT categories, types, lease, max_attempts, max_in_flight FROM es_subscriptions;
SELECT append('aX aX aX aX aX aX');
SELECT poll('s');
SELECT lease_left > '1 h 59 min' FROM es_subscription_status;
SELECT es_seek('s', NULL);
-- es_seek forgets the filter before.
SELECT append('aX aY');
SELECT poll('s');
SELECT es_alter_subscription('s', types => '{Y}');
SELECT es_seek('s', (SELECT max(position) - 2 FROM es_events));
SELECT * FROM status;
SELECT poll('s');

-- What is refused, and changes nothing.
SELECT es_alter_subscription('nothing', 'a');
SELECT es_alter_subscription(NULL, 'a');
SELECT es_alter_subscription('s', 'a-1');
SELECT es_alter_subscription('s', '{}');
SELECT es_alter_subscription('s', types => '{}');
SELECT es_alter_subscription('s', lease => '0');
SELECT es_alter_subscription('s', max_attempts => 0);
SELECT es_alter_subscription('s', max_in_flight => 1000001);
SELECT es_alter_subscription('s', 'a', all_categories => true);
SELECT es_alter_subscription('s', types => '{a}', all_types => true);
SELECT es_alter_subscription('s');
SELECT categories, types, lease, max_attempts, max_in_flight FROM es_subscriptions;

DROP EXTENSION eventstore CASCADE;
DROP SEQUENCE stream;
DROP FUNCTION append, poll, token, first_token;
