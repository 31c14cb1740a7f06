import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import {
  ConditionFailedError,
  DuplicateEventError,
  EventStore,
  EventStoreError,
  InvalidEventError,
  isConflict,
  isConnectionLost,
  isTransient,
  NotClaimedError,
  ProjectionFailedError,
  StreamClosedError,
  SubjectErasedError,
  WrongExpectedVersionError,
  WrongShardError,
} from 'eventstore-postgres';
import { rolledBack } from 'eventstore-postgres/testing';
import { admin, collect, endPools, pooled, store } from './server.js';

after(endPools);

type Opened = { type: 'opened'; data: { owner: string } };
type Moved = { type: 'moved'; data: { amount: number } };
type AccountEvent = Opened | Moved;

test('an event comes back as it was appended', async () => {
  const id = '6f1d2a34-0000-4000-8000-000000000001';
  const appended = await store.append<AccountEvent>('round-1', 'none', {
    type: 'opened',
    data: { owner: 'Ann "the" \\ Ä' },
    metadata: { user: 7 },
    id,
    occurredAt: '2026-01-31T20:00:00.123456+01:00',
    tags: ['b', 'a', 'b'],
    body: Uint8Array.of(0, 1, 255),
  });
  assert.deepEqual([await store.streamVersion('round-1'), await store.streamVersion('round-0')], [1n, 0n]);
  const [event] = await collect(store.load<AccountEvent>('round-1'));
  assert(event?.type === 'opened');
  assert.equal(event.data.owner, 'Ann "the" \\ Ä'); // the type of data follows from that of the event
  assert.match(event.recordedAt, /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+[+-]\d\d:\d\d$/);
  assert.equal(Date.parse(event.occurredAt ?? ''), Date.parse('2026-01-31T20:00:00.123456+01:00'));
  assert.match(event.occurredAt ?? '', /00\.123456/);
  const { recordedAt: _1, occurredAt: _2, ...rest } = event;
  assert.deepEqual(rest, {
    position: appended.position,
    version: 1n,
    id,
    stream: 'round-1',
    type: 'opened',
    data: { owner: 'Ann "the" \\ Ä' },
    metadata: { user: 7 },
    tags: ['a', 'b'],
    body: Buffer.from([0, 1, 255]),
  });
});

test('any JSON is data, by append and by appendBatch', async () => {
  const values = [{}, [1, 2], 'text', 7, true, null, { a: { b: [null] } }];

  for (const data of values) await store.append('json-1', 'any', { type: 'said', data });
  await store.append('json-1', 'any', { type: 'said' });
  await store.appendBatch('json-2', 'none', [...values.map((data) => ({ type: 'said', data })), { type: 'said' }]);
  for (const stream of ['json-1', 'json-2']) {
    const events = await collect(store.load(stream));
    assert.deepEqual(
      events.map((event) => event.data),
      [...values, {}],
    );
  }
});

test('a batch keeps all attributes', async () => {
  const when = new Date('2026-02-03T04:05:06.789Z');
  const { version } = await store.appendBatch<AccountEvent>('batch-1', 'none', [
    { type: 'opened', data: { owner: 'Bob' }, tags: ['x:1'], body: Buffer.from('bytes'), occurredAt: when },
    { type: 'moved', data: { amount: 5 }, metadata: { a: 1 }, id: '6f1d2a34-0000-4000-8000-000000000002' },
  ]);
  const [first, second] = await collect(store.load<AccountEvent>('batch-1'));
  assert.equal(version, 2n);
  assert.deepEqual([first?.tags, first?.body?.toString()], [['x:1'], 'bytes']);
  assert.equal(Date.parse(first?.occurredAt ?? ''), when.getTime());
  assert.deepEqual([second?.metadata, second?.id], [{ a: 1 }, '6f1d2a34-0000-4000-8000-000000000002']);
  assert.deepEqual(await store.appendBatch('batch-1', 2, []), { version: 2n, position: null });
});

test('positions, versions and tokens are bigint, and no other type is changed', async () => {
  const appended = await store.append('numbers-1', 0, { type: 'said' });
  assert.equal(typeof appended.position, 'bigint');
  assert.equal(typeof appended.version, 'bigint');
  const { rows } = await pooled.query('SELECT 9007199254740993::bigint AS n');
  assert.equal(rows[0].n, '9007199254740993'); // the program's own queries are as they were
});

test('a retry with ids returns the first result', async () => {
  const event = { type: 'said', data: { a: 1 }, id: '6f1d2a34-0000-4000-8000-000000000003' };
  const first = await store.append('retry-1', 'none', event);
  await store.append('retry-1', 1, { type: 'said' });
  assert.deepEqual(await store.append('retry-1', 'none', event), first);
  await assert.rejects(store.append('retry-2', 'any', event), DuplicateEventError);
});

test('load gives every event of a stream once, whatever the page', async () => {
  await store.appendBatch(
    'pages-1',
    'none',
    Array.from({ length: 10 }, (_, n) => ({ type: 'said', data: n + 1 })),
  );
  for (const pageSize of [1, 3, 5, 10, 11]) {
    const versions = (await collect(store.load('pages-1', { pageSize }))).map((event) => Number(event.version));
    assert.deepEqual(versions, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]);
  }
  const part = await collect(store.load('pages-1', { afterVersion: 2n, maxCount: 5, pageSize: 2 }));
  assert.deepEqual(
    part.map((event) => event.data),
    [3, 4, 5, 6, 7],
  );
  assert.deepEqual(await collect(store.load('pages-none')), []);
  for await (const event of store.load('pages-1', { pageSize: 2 })) if (event.version === 3n) break;
});

test('read goes by category, types, query and position', async () => {
  const { position } = await store.append('sort-1', 'none', { type: 'a', tags: ['sort:1'] });
  await store.append('sort-2', 'none', { type: 'b', tags: ['sort:1'] });
  await store.append('sorted-3', 'none', { type: 'a', tags: ['sort:2'] });
  const streams = async (options: Parameters<typeof store.read>[0]) =>
    (await collect(store.read({ pageSize: 1, ...options }))).map((event) => event.stream);
  assert.deepEqual(await streams({ category: 'sort' }), ['sort-1', 'sort-2']);
  assert.deepEqual(await streams({ category: 'sort', types: ['b'] }), ['sort-2']);
  assert.deepEqual(await streams({ types: ['a'] }), ['sort-1', 'sorted-3']);
  assert.deepEqual(await streams({ query: [{ tags: ['sort:1'], types: ['b'] }, { tags: ['sort:2'] }] }), [
    'sort-2',
    'sorted-3',
  ]);
  assert.deepEqual(await streams({ afterPosition: position, maxCount: 1 }), ['sort-2']);
  await assert.rejects(streams({ category: 'sort', query: [{}] }), TypeError);
});

test('appendIf holds its condition', async () => {
  const query = [{ tags: ['username:ann'] }];
  const claim = { type: 'registered', data: {}, tags: ['username:ann'] };
  const first = await store.appendIf([claim], query);
  assert.equal(first.firstPosition, first.position);
  const refused = await store.appendIf([claim], query).catch((error: unknown) => error);
  assert(refused instanceof ConditionFailedError);
  assert.equal(refused.position, first.position);
  const [found] = await store.query(query);
  assert.equal(found?.stream, 'event-username:ann');
  await store.appendIf([{ type: 'renamed', stream: 'user-1', expectedVersion: 'none' }], query, first.position);
  const wrong = store.appendIf([{ type: 'renamed', stream: 'user-1', expectedVersion: 7n }], query, first.position);
  await assert.rejects(wrong, WrongExpectedVersionError);
  const last = await store.query([{ types: ['registered', 'renamed'] }], { backward: true, maxCount: 1 });
  assert.equal(last[0]?.type, 'renamed');
});

test('state and execute call functions of the database', async () => {
  await admin.query(`
    CREATE SCHEMA till;
    CREATE FUNCTION till.apply_moved(state jsonb, data jsonb) RETURNS jsonb LANGUAGE sql
      RETURN jsonb_build_object('sum', coalesce((state->>'sum')::int, 0) + (data->>'amount')::int);
    CREATE FUNCTION till.move(state jsonb, command jsonb) RETURNS jsonb LANGUAGE sql
      RETURN jsonb_build_array(jsonb_build_object('type', 'moved', 'data', command));
    SELECT es_reducer('till')`);
  type Sum = { sum: number };
  const commandId = '6f1d2a34-0000-4000-8000-000000000004';
  const run = () => store.execute<Sum>('till-1', 'till.move', { amount: 5 }, 'till.es_reduce', { commandId });
  const done = await run();
  assert.deepEqual({ ...done, position: null }, { version: 1n, position: null, state: { sum: 5 }, events: 1 });
  assert.deepEqual(await run(), done);
  await store.execute('till-1', 'till.move', { amount: 2 }, 'till.es_reduce', { expected: 1, metadata: { a: 1 } });
  assert.deepEqual(await store.state<Sum>('till-1', 'till.es_reduce'), { state: { sum: 7 }, version: 2n });
  const before = await store.state<Sum>('till-1', 'till.es_reduce', { atVersion: 1, initial: { sum: 100 } });
  assert.deepEqual(before, { state: { sum: 105 }, version: 1n });
});

test('errors are typed, and carry what the server says', async () => {
  await store.append('error-1', 'none', { type: 'said' });
  const wrong = await store.append('error-1', 7, { type: 'said' }).catch((error: unknown) => error);
  assert(wrong instanceof WrongExpectedVersionError && wrong instanceof EventStoreError);
  assert.deepEqual([wrong.stream, wrong.expected, wrong.actual], ['error-1', '7', 1n]);
  assert.deepEqual([wrong.name, wrong.code], ['WrongExpectedVersionError', 'ES001']);
  assert.match(wrong.hint ?? '', /Load the stream again/);
  assert((wrong.cause as Error).message === wrong.message);
  assert(isConflict(wrong) && !isTransient(wrong) && !isConnectionLost(wrong));
  const none = await store.append('error-1', 'none', { type: 'said' }).catch((error: unknown) => error);
  assert(none instanceof WrongExpectedVersionError && none.expected === 'none' && none.actual === 1n);

  await admin.query(`SELECT es_delete_stream('error-1', 'any', tombstone => true)`);
  await assert.rejects(store.append('error-1', 'any', { type: 'said' }), StreamClosedError);
  await assert.rejects(store.ack('none', 1n), { code: '42704', severity: 'ERROR' }); // the driver's own
  await store.createSubscription('errors');
  await assert.rejects(store.ack('errors', 99n), NotClaimedError);
  await admin.query(`SELECT es_define_event_type('checked', required => '{a,b}')`);
  const invalid = await store
    .append('error-2', 'any', { type: 'checked', data: { c: 1 } })
    .catch((error: unknown) => error);
  assert(invalid instanceof InvalidEventError);
  assert(invalid.violations.length >= 2);
  assert(!isConflict(invalid) && !isTransient(invalid));
  await admin.query(`SELECT es_define_event_type('joined', personal => '{name}'), es_erase_subject('17')`);
  const erased = await store
    .append('person-17', 'any', { type: 'joined', data: { name: 'Ann' } })
    .catch((error: unknown) => error);
  assert(erased instanceof SubjectErasedError);
  assert.deepEqual([erased.code, erased.subject], ['ES008', '17']);
  assert(!isConflict(erased) && !isTransient(erased));
  await admin.query(`SELECT es_set_slots('{[0,512)}')`);
  const elsewhere = await store.append('account-1', 'any', { type: 'said' }).catch((error: unknown) => error);
  await admin.query('SELECT es_set_slots(NULL)');
  assert(elsewhere instanceof WrongShardError);
  assert.deepEqual([elsewhere.code, elsewhere.stream, elsewhere.slot], ['ES009', 'account-1', 852]);
  assert(!isConflict(elsewhere) && !isTransient(elsewhere));
});

test('wait lets a program read its own writes', async () => {
  await admin.query(`
    CREATE TABLE balance (account text PRIMARY KEY, amount int NOT NULL);
    SELECT es_create_projection('balance', tables => '{balance}', category => 'own', on_failure => 'park',
      max_attempts => 1, query => $$
      INSERT INTO balance SELECT stream, sum((data->>'amount')::int) FROM new_events GROUP BY stream
      ON CONFLICT (account) DO UPDATE SET amount = balance.amount + excluded.amount $$)`);
  for (let n = 1; n <= 20; n++) {
    const { position } = await store.append('own-1', 'any', { type: 'moved', data: { amount: 1 } });
    assert.equal(await store.wait(['balance'], position, 20_000), true);
    const { rows } = await pooled.query(`SELECT amount FROM balance WHERE account = 'own-1'`);
    assert.equal(rows[0].amount, n);
  }
  await admin.query(`SELECT es_pause_projection('balance')`);
  const { position } = await store.append('own-1', 'any', { type: 'moved', data: { amount: 1 } });
  assert.equal(await store.wait('balance', position, 100), false);
  await admin.query(`SELECT es_resume_projection('balance')`);
  const poison = await store.append('own-1', 'any', { type: 'moved', data: { amount: 'much' } });
  await assert.rejects(store.wait('balance', poison.position, 20_000), ProjectionFailedError);
  await admin.query(`SELECT es_drop_projection('balance')`);
});

test('a transaction takes effect as a whole, with tables of the program', async () => {
  await admin.query('CREATE TABLE seen (stream text)');
  await store.transaction(async (inside, client) => {
    await inside.append('together-1', 'none', { type: 'said' });
    await client.query(`INSERT INTO seen VALUES ('together-1')`);
    await assert.rejects(
      inside.transaction(async () => undefined),
      TypeError,
    );
  });
  const failed = store.transaction(async (inside, client) => {
    await client.query(`INSERT INTO seen VALUES ('together-2')`);
    await inside.append('together-2', 'none', { type: 'said' });
    await inside.append('together-2', 'none', { type: 'said' });
  });
  await assert.rejects(failed, WrongExpectedVersionError);
  const { rows } = await admin.query('SELECT string_agg(stream, $1) AS seen FROM seen', [',']);
  assert.equal(rows[0].seen, 'together-1');
  assert.deepEqual(await collect(store.load('together-2')), []);
});

test('rolledBack leaves nothing', async () => {
  const events = await rolledBack(pooled, async (inside) => {
    await inside.append('gone-1', 'none', { type: 'said' });
    return collect(inside.load('gone-1'));
  });
  assert.equal(events.length, 1);
  await assert.rejects(
    rolledBack(pooled, async (inside) => {
      await inside.append('gone-1', 'none', { type: 'said' });
      throw new Error('a failed test');
    }),
    /a failed test/,
  );
  assert.deepEqual(await collect(store.load('gone-1')), []);
});

test('a store on one connection works as well', async () => {
  const client = await pooled.connect();
  try {
    await new EventStore(client).append('single-1', 'none', { type: 'said' });
  } finally {
    client.release();
  }
  assert.equal((await collect(store.load('single-1'))).length, 1);
  assert(((await store.horizon()) as bigint) > 0n);
});
