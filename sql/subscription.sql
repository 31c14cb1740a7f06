CREATE TABLE es_subscriptions (
    name           text COLLATE "C" NOT NULL PRIMARY KEY,
    owner          es_role     NOT NULL,
    categories     text[] COLLATE "C",
    types          text[] COLLATE "C",
    query          jsonb,
    start_position bigint      NOT NULL CHECK (start_position >= 0),
    partitions     int         NOT NULL CHECK (partitions BETWEEN 1 AND 1024),
    lease          interval    NOT NULL CHECK (lease > '0'),
    max_attempts   int         NOT NULL CHECK (max_attempts BETWEEN 1 AND 1000),
    max_in_flight  int         NOT NULL CHECK (max_in_flight BETWEEN 1 AND 1000000),
    created_at     timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- A poll reads the first columns of all partitions: those of fixed length come first.  A
-- CHECK would be parsed anew at each delivery and acknowledgement.
CREATE TABLE es_partitions (
    subscription text COLLATE "C" NOT NULL,
    partition    int         NOT NULL,
    position     bigint      NOT NULL,
    reached      bigint      NOT NULL,
    delivered_at timestamptz,
    leased_until timestamptz,
    due_at       timestamptz,
    token        bigint      NOT NULL DEFAULT 0,
    acked_token  bigint      NOT NULL DEFAULT 0,
    consumer     text,
    tokens       bigint[]    NOT NULL DEFAULT '{}',
    uptos        bigint[]    NOT NULL DEFAULT '{}',
    counts       bigint[]    NOT NULL DEFAULT '{}',
    stream       text COLLATE "C",
    has_failures boolean     NOT NULL DEFAULT false,
    settled      bigint[]    NOT NULL DEFAULT '{}',
    expired_upto bigint[]    NOT NULL DEFAULT '{}',
    expired_times bigint[]   NOT NULL DEFAULT '{}',
    earlier_upto bigint,
    earlier_categories text[] COLLATE "C",
    earlier_types text[] COLLATE "C",
    earlier_query jsonb,
    PRIMARY KEY (subscription, partition)
) WITH (fillfactor = 50);

SELECT pg_catalog.pg_extension_config_dump('es_subscriptions', '');
SELECT pg_catalog.pg_extension_config_dump('es_partitions', '');

CREATE FUNCTION es_create_subscription(
    name text, category es_categories DEFAULT NULL, types text[] DEFAULT NULL, start_position bigint DEFAULT 0,
    partitions bigint DEFAULT 1, lease interval DEFAULT '30s', max_attempts bigint DEFAULT 10,
    max_in_flight bigint DEFAULT 1000, query jsonb DEFAULT NULL)
    RETURNS void AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE;
CREATE FUNCTION es_drop_subscription(name text)
    RETURNS void AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE;
CREATE FUNCTION es_alter_subscription(
    name text, category es_categories DEFAULT NULL, types text[] DEFAULT NULL, lease interval DEFAULT NULL,
    max_attempts bigint DEFAULT NULL, max_in_flight bigint DEFAULT NULL,
    all_categories boolean DEFAULT false, all_types boolean DEFAULT false,
    query jsonb DEFAULT NULL, any_event boolean DEFAULT false)
    RETURNS void AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE;
CREATE FUNCTION es_rename_subscription(name text, new_name text)
    RETURNS void AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE;
CREATE FUNCTION es_seek(subscription text, "position" bigint)
    RETURNS void AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE;
CREATE FUNCTION es_poll(
    subscription text, consumer text DEFAULT NULL, max_count bigint DEFAULT 100, wait interval DEFAULT '0',
    after_token bigint DEFAULT NULL, max_bytes bigint DEFAULT 8388608,
    OUT token bigint, OUT partition int, OUT attempt int,
    OUT "position" bigint, OUT version bigint, OUT recorded_at timestamptz, OUT occurred_at timestamptz,
    OUT id uuid, OUT stream text, OUT type text, OUT data jsonb, OUT metadata jsonb,
    OUT tags text[], OUT body bytea)
    RETURNS SETOF record AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE ROWS 100;
CREATE FUNCTION es_ack(subscription text, token bigint, upto_position bigint DEFAULT NULL)
    RETURNS bigint AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE;
CREATE FUNCTION es_nack(subscription text, token bigint, "position" bigint, reason text, action text DEFAULT 'retry')
    RETURNS text AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE;

REVOKE EXECUTE ON FUNCTION
    es_create_subscription(text, es_categories, text[], bigint, bigint, interval, bigint, bigint, jsonb),
    es_drop_subscription(text), es_seek(text, bigint),
    es_alter_subscription(text, es_categories, text[], interval, bigint, bigint, boolean, boolean, jsonb, boolean),
    es_rename_subscription(text, text),
    es_poll(text, text, bigint, interval, bigint, bigint),
    es_ack(text, bigint, bigint), es_nack(text, bigint, bigint, text, text)
    FROM PUBLIC;

-- How far partitions are behind, for the view below: a row for each of them that the
-- caller may see, as es_projection_lag() has it for projections.
CREATE FUNCTION es_subscription_lag(
    OUT subscription text, OUT partition int, OUT horizon bigint, OUT horizon_held_since timestamptz,
    OUT lag_events bigint, OUT lag_is_estimate boolean, OUT lag_since timestamptz)
    RETURNS SETOF record AS 'MODULE_PATHNAME' LANGUAGE C STABLE PARALLEL RESTRICTED ROWS 100;

CREATE VIEW es_subscription_status WITH (security_barrier) AS
    SELECT p.subscription, p.partition, p.consumer,
           CASE WHEN p.leased_until IS NOT NULL THEN greatest(p.leased_until - clock_timestamp(), '0') END AS lease_left,
           p.position, l.horizon, l.lag_events,
           CASE WHEN l.lag_since IS NULL THEN 0 ELSE extract(epoch FROM greatest(clock_timestamp() - l.lag_since, '0')) END AS lag_seconds,
           l.lag_is_estimate,
           CASE WHEN p.leased_until IS NULL THEN 0
                WHEN p.stream IS NOT NULL THEN
                    (SELECT count(*) FROM es_failures f
                      WHERE f.subscription = p.subscription AND f.stream = p.stream
                        AND f.position <= p.uptos[1])
                ELSE (SELECT coalesce(sum(c.events), 0)::bigint FROM pg_catalog.unnest(p.counts) AS c (events))
           END AS in_flight,
           f.parked, f.oldest_parked_age,
           l.horizon_held_since
      FROM es_subscription_lag() l
      JOIN es_partitions p ON p.subscription = l.subscription AND p.partition = l.partition
     CROSS JOIN LATERAL (
         SELECT count(*) AS parked, clock_timestamp() - min(f.first_failed_at) AS oldest_parked_age
           FROM es_failures f
          WHERE f.subscription = p.subscription AND f.partition = p.partition
            AND EXISTS (SELECT FROM es_failures g
                         WHERE g.subscription = f.subscription AND g.stream = f.stream
                           AND g.position <= f.position
                           AND g.message IS NOT NULL AND g.retry_at IS NULL)) f;

COMMENT ON TABLE es_subscriptions IS 'subscriptions: which events each delivers, and how';
COMMENT ON COLUMN es_subscriptions.name IS 'name of the subscription';
COMMENT ON COLUMN es_subscriptions.owner IS 'role whose rights events are read with';
COMMENT ON COLUMN es_subscriptions.categories IS 'categories whose events it delivers; null: all';
COMMENT ON COLUMN es_subscriptions.types IS 'types of the events that it delivers; null: all';
COMMENT ON COLUMN es_subscriptions.query IS 'query that the events match that it delivers; null: all events';
COMMENT ON COLUMN es_subscriptions.start_position IS 'position after which it began';
COMMENT ON COLUMN es_subscriptions.partitions IS 'into how many partitions its streams are divided';
COMMENT ON COLUMN es_subscriptions.lease IS 'how long delivered events stay in flight';
COMMENT ON COLUMN es_subscriptions.max_attempts IS 'how often an event is delivered before it is parked';
COMMENT ON COLUMN es_subscriptions.max_in_flight IS 'how many events of a partition may be in flight';
COMMENT ON COLUMN es_subscriptions.created_at IS 'when it was created';
COMMENT ON TABLE es_partitions IS 'partitions of subscriptions: how far each is, and what is in flight';
COMMENT ON COLUMN es_partitions.subscription IS 'name of the subscription';
COMMENT ON COLUMN es_partitions.partition IS 'number of the partition, from 0; es_partition() computes that of a stream';
COMMENT ON COLUMN es_partitions.position IS 'checkpoint: every event of the partition up to here is acknowledged, skipped or parked';
COMMENT ON COLUMN es_partitions.reached IS 'position up to which the log was read, with nothing else to deliver';
COMMENT ON COLUMN es_partitions.delivered_at IS 'when events were last delivered from it';
COMMENT ON COLUMN es_partitions.consumer IS 'consumer that has events in flight; null: none, or one without a name';
COMMENT ON COLUMN es_partitions.leased_until IS 'when the lease expires; null: nothing is in flight';
COMMENT ON COLUMN es_partitions.token IS 'token of the last delivery';
COMMENT ON COLUMN es_partitions.acked_token IS 'token of the last delivery that was acknowledged as a whole';
COMMENT ON COLUMN es_partitions.tokens IS 'tokens of the deliveries in flight, in order';
COMMENT ON COLUMN es_partitions.uptos IS 'last position of each delivery in flight';
COMMENT ON COLUMN es_partitions.counts IS 'how many events of each delivery are in flight';
COMMENT ON COLUMN es_partitions.stream IS 'stream of es_failures that is in flight; null: events after the checkpoint';
COMMENT ON COLUMN es_partitions.has_failures IS 'whether it may have rows in es_failures';
COMMENT ON COLUMN es_partitions.due_at IS 'when one of its failures may be due; null: none is';
COMMENT ON COLUMN es_partitions.settled IS 'positions after the checkpoint that es_nack has settled';
COMMENT ON COLUMN es_partitions.expired_upto IS 'ends of the ranges of positions after the checkpoint whose lease has expired';
COMMENT ON COLUMN es_partitions.expired_times IS 'how often the lease of each of these ranges has expired';
COMMENT ON COLUMN es_partitions.earlier_upto IS 'last position in flight when the subscription got another filter; null: none was';
COMMENT ON COLUMN es_partitions.earlier_categories IS 'categories of the filter that events up to there have';
COMMENT ON COLUMN es_partitions.earlier_types IS 'types of that filter';
COMMENT ON COLUMN es_partitions.earlier_query IS 'query of that filter';
COMMENT ON VIEW es_subscription_status IS 'how far each partition of each subscription is';
COMMENT ON COLUMN es_subscription_status.subscription IS 'name of the subscription';
COMMENT ON COLUMN es_subscription_status.partition IS 'number of the partition';
COMMENT ON COLUMN es_subscription_status.consumer IS 'consumer that has events in flight; null: none, or one without a name';
COMMENT ON COLUMN es_subscription_status.lease_left IS 'time until the lease expires; null: nothing is in flight';
COMMENT ON COLUMN es_subscription_status.position IS 'checkpoint of the partition';
COMMENT ON COLUMN es_subscription_status.horizon IS 'position up to which events can be delivered';
COMMENT ON COLUMN es_subscription_status.lag_events IS 'how many of its events come after the checkpoint';
COMMENT ON COLUMN es_subscription_status.lag_seconds IS 'age of the first of them; 0: none; if lag_is_estimate, perhaps of an earlier one';
COMMENT ON COLUMN es_subscription_status.lag_is_estimate IS 'whether lag_events is an estimate, as there were too many events to count';
COMMENT ON COLUMN es_subscription_status.in_flight IS 'how many of its events are in flight';
COMMENT ON COLUMN es_subscription_status.parked IS 'how many events are parked in es_failures, with those that wait behind them';
COMMENT ON COLUMN es_subscription_status.oldest_parked_age IS 'age of the oldest of them; null: there is none';
COMMENT ON COLUMN es_subscription_status.horizon_held_since IS 'since when events above the horizon wait for an open append; null: none does';
COMMENT ON FUNCTION es_subscription_lag() IS
    'part of es_subscription_status: how far each partition is behind';
COMMENT ON FUNCTION es_create_subscription(text, es_categories, text[], bigint, bigint, interval, bigint, bigint, jsonb) IS
    'creates a subscription to all events, or to those of some categories and types that match a query';
COMMENT ON FUNCTION es_drop_subscription(text) IS
    'drops a subscription and its failures';
COMMENT ON FUNCTION es_alter_subscription(text, es_categories, text[], interval, bigint, bigint, boolean, boolean, jsonb, boolean) IS
    'changes the filter or settings of a subscription; null leaves one as it is';
COMMENT ON FUNCTION es_rename_subscription(text, text) IS
    'renames a subscription; what is in flight keeps its tokens';
COMMENT ON FUNCTION es_seek(text, bigint) IS
    'moves a subscription to another position; null: to the horizon';
COMMENT ON FUNCTION es_poll(text, text, bigint, interval, bigint, bigint) IS
    'delivers the next events of one partition to a consumer; waits for some if there are none';
COMMENT ON FUNCTION es_ack(text, bigint, bigint) IS
    'acknowledges a delivery, or its events up to a position; returns the checkpoint';
COMMENT ON FUNCTION es_nack(text, bigint, bigint, text, text) IS
    'settles an event that could not be handled: retry, park or skip; returns the action that was taken';
