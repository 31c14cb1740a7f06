// Bank accounts in an event store, with the driver pg: doc/tutorial/node.md.
const { randomUUID } = require('node:crypto');
const { once } = require('node:events');
const { Client, Pool } = require('pg');

const pool = new Pool();

async function append(stream, expected, type, data, id) {
  const { rows } = await pool.query(
    'SELECT version, position FROM es_append($1, $2, $3, $4, id => $5)',
    [stream, expected, type, data, id]);
  return rows[0];
}

const isConflict = (error) => error.code === 'ES001';

async function openAccount() {
  const id = randomUUID();
  console.log('opened, version', (await append('account-1', 'none', 'opened', { owner: 'Ann' }, id)).version);
  console.log('opened again, version', (await append('account-1', 'none', 'opened', { owner: 'Ann' }, id)).version);
  await append('account-1', 1, 'deposited', { amount: 100 }, randomUUID());
  try {
    await append('account-1', 1, 'deposited', { amount: 100 }, randomUUID());
  } catch (error) {
    if (!isConflict(error)) throw error;
    console.log('conflict:', error.message);
  }
}

async function load(stream) {
  return (await pool.query('SELECT version, id, type, data FROM es_load($1)', [stream])).rows;
}

const apply = {
  deposited: (balance, { amount }) => balance + amount,
  withdrawn: (balance, { amount }) => balance - amount,
};

function fold(events) {
  return events.reduce((balance, { type, data }) => apply[type]?.(balance, data) ?? balance, 0);
}

class Refused extends Error {}

// Loads, decides and appends, again if another writer was faster. Returns the version.
async function withdraw(stream, amount, commandId) {
  for (let attempt = 0; attempt < 10; attempt++) {
    const events = await load(stream);
    const done = events.find(({ id }) => id === commandId); // by an earlier attempt, whose answer was lost
    if (done) return done.version;
    if (fold(events) < amount) throw new Refused(`only ${fold(events)} left`);
    try {
      return (await append(stream, events.at(-1).version, 'withdrawn', { amount }, commandId)).version;
    } catch (error) {
      if (!isConflict(error)) throw error;
    }
  }
  throw new Error(`too many writers of ${stream}`);
}

async function withdrawAtOnce() {
  try {
    await withdraw('account-1', 30, randomUUID());
    return 'done';
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    return error.message;
  }
}

async function withdrawOften() {
  const answers = await Promise.all(Array.from({ length: 4 }, withdrawAtOnce));
  console.log('four withdrawals of 30:', answers.sort().join(', '));
  const commandId = randomUUID();
  console.log('withdrawn, version', await withdraw('account-1', 5, commandId));
  console.log('withdrawn again, version', await withdraw('account-1', 5, commandId));
  const events = await load('account-1');
  console.log('balance', fold(events), 'at version', events.at(-1).version);
}

async function readOwnWrite() {
  const { position } = await append('account-1', 6, 'deposited', { amount: 20 }, randomUUID());
  await pool.query("SELECT es_wait('balance', $1)", [position]);
  const { rows } = await pool.query("SELECT amount FROM balance WHERE account = 'account-1'");
  console.log('read model:', rows[0].amount);
}

// Handles events until there are no more.
async function consume(name, handled) {
  for (;;) {
    const { rows: events } = await pool.query("SELECT * FROM es_poll('mails', consumer => $1, wait => '1s')", [name]);
    if (events.length === 0) return;
    for (const event of events) handled.push(event); // here the mail would be sent
    await pool.query("SELECT es_ack('mails', $1)", [events[0].token]);
  }
}

async function consumeSideBySide() {
  const events = [{ type: 'opened', data: { owner: 'Bob' } }, { type: 'deposited', data: { amount: 7 } }];
  for (const stream of ['account-2', 'account-3', 'account-4']) {
    await pool.query("SELECT es_append_batch($1, 'none', $2::jsonb)", [stream, JSON.stringify(events)]);
  }
  const handled = [];
  await Promise.all([consume('mails-1', handled), consume('mails-2', handled)]);
  const streams = new Set(handled.map(({ stream }) => stream));
  for (const stream of [...streams].sort()) {
    console.log(`${stream}:`, ...handled.filter((event) => event.stream === stream).map(({ version }) => version));
  }
}

async function listen() {
  const listener = new Client();
  await listener.connect();
  try {
    await listener.query('LISTEN "es_events:account"');
    const { rows: [{ horizon }] } = await pool.query('SELECT es_horizon() AS horizon');
    let woken = once(listener, 'notification');
    await append('account-4', 2, 'withdrawn', { amount: 7 }, randomUUID());
    for (;;) {
      await woken;
      woken = once(listener, 'notification');
      const { rows } = await pool.query("SELECT stream, type FROM es_read_category('account', $1)", [horizon]);
      if (rows.length > 0) {
        console.log('woken:', rows[0].stream, rows[0].type);
        return;
      }
    }
  } finally {
    await listener.end();
  }
}

async function main() {
  await openAccount();
  await withdrawOften();
  await readOwnWrite();
  await consumeSideBySide();
  await listen();
  await pool.end();
}

main();
