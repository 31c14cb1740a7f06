const assert = require('node:assert');
const { test } = require('node:test');
const { Client } = require('pg');

async function connected(work) {
  const db = new Client();
  await db.connect();
  try {
    return await work(db);
  } finally {
    await db.end();
  }
}

// A transaction that leaves nothing: it ends with its connection.
const rolledBack = (work) => () => connected(async (db) => {
  await db.query('BEGIN');
  await work(db);
});

// An empty store, for a test that commits; it is emptied again afterwards.
const emptied = (work) => () => connected(async (db) => {
  await db.query('SELECT es_reset()');
  try {
    await work(db);
  } finally {
    await db.query('SELECT es_reset()');
  }
});

async function one(db, sql, ...values) {
  return (await db.query(sql, values)).rows[0];
}

const append = async (db, expected, type, data = {}) =>
  (await one(db, "SELECT position FROM es_append('account-1', $1, $2, $3)", expected, type, data)).position;

test('only what is there is withdrawn', rolledBack(async (db) => {
  const given = JSON.stringify([{ type: 'opened' }, { type: 'deposited', data: { amount: 50 } }]);
  const sql = `SELECT events, error FROM es_test_decider('account.es_reduce', 'account.withdraw',
                                                         given => $1, command => $2)`;
  assert.deepEqual(await one(db, sql, given, { amount: 20 }),
    { events: [{ type: 'withdrawn', data: { amount: 20 } }], error: null });
  assert.deepEqual(await one(db, sql, given, { amount: 51 }), { events: null, error: 'only 50 left' });
}));

test('the balance is shown', rolledBack(async (db) => {
  await append(db, 'none', 'opened');
  const position = await append(db, '1', 'deposited', { amount: 50 });
  assert.deepEqual(await one(db, "SELECT es_run_projections('balance') AS events"), { events: '2' });
  assert.deepEqual(await one(db, "SELECT es_wait('balance', $1) AS there", position), { there: true });
  assert.deepEqual(await one(db, 'SELECT account, amount FROM balance'), { account: 'account-1', amount: '50' });
  const { rows } = await db.query("SELECT type FROM es_poll('mails')");
  assert.deepEqual(rows, [{ type: 'opened' }, { type: 'deposited' }]);
}));

test('the second of two conflicts', emptied(async (db) => {
  assert.equal(await append(db, 'none', 'opened'), '1');
  const position = await connected((other) => append(other, '1', 'deposited', { amount: 7 }));
  await assert.rejects(append(db, '1', 'deposited', { amount: 5 }), { code: 'ES001' });
  assert.deepEqual(await one(db, "SELECT es_wait('balance', $1) AS there", position), { there: true }); // by a worker
  assert.deepEqual(await one(db, 'SELECT amount FROM balance'), { amount: '7' });
}));
