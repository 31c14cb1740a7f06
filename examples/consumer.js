// A consumer of a subscription in Node.js, with the driver pg.
//
//     node consumer.js SUBSCRIPTION [NAME]
//
// It connects by the usual variables, such as PGHOST, PGDATABASE and PGUSER. One
// running program at a time may use a NAME. If it is started again under its NAME,
// it continues at once with the events that it had in flight. Without a NAME it
// waits until their lease expires.
//
// It polls without waiting, and LISTEN wakes it. So no connection is busy while
// there is nothing to do. Connections may come from a pool, and one listener can
// wake many consumers. Only an append wakes a consumer, but not a retry that is due
// or a lease that has expired. So it also looks every second. es_poll(wait => ...),
// as in consumer.py, needs neither. LISTEN belongs to its session. Behind pgbouncer,
// LISTEN_URL must lead to the server itself.
const { Client, DatabaseError } = require('pg');

const [subscription, name] = process.argv.slice(2);
let stopping = false;

const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const bell = {
  ring() { this.rung = true; this.answer?.(); },
  async wait(ms) {
    if (!this.rung) await Promise.race([sleep(ms), new Promise((resolve) => { this.answer = resolve; })]);
    this.rung = false;
  },
};

// Does the work. It may run twice for an event, so it should be idempotent.
async function handle(client, event) {
  await client.query(
    'INSERT INTO handled (consumer, position, stream, version, attempt) VALUES ($1, $2, $3, $4, $5)',
    [name, event.position, event.stream, event.version, event.attempt]);
}

async function deliver(client, events) {
  const failed = new Set();
  const { token } = events[0]; // a bigint: pg returns it as a string, and so it stays
  for (const event of events) {
    if (failed.has(event.stream)) continue; // it comes again, after the one that failed
    try {
      await handle(client, event);
    } catch (error) {
      // If the connection is lost this fails, too, and nothing is settled.
      await client.query('SELECT es_nack($1, $2, $3, $4)', [subscription, token, event.position, error.message]);
      failed.add(event.stream);
    }
  }
  await client.query('SELECT es_ack($1, $2)', [subscription, token]);
}

async function consume(client, listener) {
  await listener.query('LISTEN es_events');
  await client.query('SELECT es_create_subscription($1, partitions => 4, lease => $2)',
    [subscription, process.env.LEASE ?? '30s'])
    .catch((error) => { if (error.code !== '42710') throw error; }); // it is there
  while (!stopping) {
    const { rows } = await client.query('SELECT * FROM es_poll($1, consumer => $2)', [subscription, name]);
    if (rows.length === 0) {
      await bell.wait(1000);
    } else {
      await deliver(client, rows).catch((error) => {
        if (error.code !== 'ES006') throw error;
        console.error('the lease expired, and another consumer has these events now');
      });
    }
  }
}

async function main() {
  for (let pause = 100; !stopping;) {
    const client = new Client();
    const listener = new Client(process.env.LISTEN_URL);
    for (const each of [client, listener]) each.on('error', () => bell.ring()); // the next query fails, too
    listener.on('notification', () => bell.ring());
    try {
      await Promise.all([client.connect(), listener.connect()]);
      pause = 100;
      await consume(client, listener);
    } catch (error) {
      // Other errors of the server do not go away by connecting again.
      if (error instanceof DatabaseError && !/^(08|53|57)/.test(error.code)) throw error;
      console.error(`connection lost, next try in ${pause} ms: ${error.message}`);
      await sleep(pause);
      pause = Math.min(pause * 2, 10000);
    } finally {
      await Promise.allSettled([client.end(), listener.end()]);
    }
  }
}

// What is in flight is finished first.
process.on('SIGTERM', () => { stopping = true; bell.ring(); });
main();
