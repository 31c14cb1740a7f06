-- Notifications: one for each channel and transaction, with the last position.
CREATE EXTENSION eventstore;

SHOW eventstore.notify;
SELECT es_channel('account'), es_channel(''), es_channel(repeat('x', 53));
-- A category too long for a channel has one by its hash.
SELECT es_channel(repeat('x', 54)), length(es_channel(repeat('x', 2048))), es_channel(repeat('x', 54)) = es_channel(repeat('x', 55)) AS same;

-- The process id differs from run to run.
CREATE FUNCTION heard() RETURNS bigint LANGUAGE sql AS 'SELECT count(*) FROM pg_listening_channels()';
LISTEN es_events;
LISTEN "es_events:account";
SELECT heard();
UNLISTEN *;

SET eventstore.notify = off;
SET eventstore.notify = commit;
SET eventstore.notify = auto;
SET eventstore.notify = 'sometimes';
SET eventstore.notified = on;
RESET eventstore.notify;

-- Those of the administrator.
SHOW eventstore.notify_interval;
SHOW eventstore.poll_interval;
SET eventstore.notify_interval = 1;
SET eventstore.poll_interval = 1;

DROP FUNCTION heard;
DROP EXTENSION eventstore;
