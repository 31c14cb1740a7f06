import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { type FollowedEvent, Listener, PositionLostError } from 'eventstore-postgres';
import { admin, crash, direct, endPools, restart, store, until } from './server.js';

after(endPools);

test('follow gives what is there and what comes, and ends by its signal', async () => {
  const listener = new Listener(direct);
  const stop = new AbortController();
  const got: FollowedEvent[] = [];
  for (let n = 1; n <= 5; n++) await store.append('live-1', 'any', { type: 'said', data: n });
  const following = (async () => {
    const options = { category: 'live', listener, pollInterval: 60_000, pageSize: 2, signal: stop.signal };
    for await (const event of store.follow(options)) got.push(event);
  })();
  await until('the first ones', () => got.length === 5);
  for (let n = 6; n <= 10; n++) {
    await sleep(100); // the listener is what wakes it, long before pollInterval
    await store.append('live-1', 'any', { type: 'said', data: n });
    await until(`event ${n}`, () => got.length === n);
  }
  stop.abort();
  await following;
  await listener.close();
  assert.deepEqual(
    got.map((event) => event.data),
    [1, 2, 3, 4, 5, 6, 7, 8, 9, 10],
  );
  const { rows } = await admin.query('SELECT es_incarnation() AS id');
  assert(got.every((event) => event.incarnation === rows[0].id));
});

test('without a listener it looks from time to time; filters and the start are those of read', async () => {
  const { position } = await store.append('poll-1', 'any', { type: 'a', tags: ['poll:1'] });
  await store.append('poll-1', 'any', { type: 'b', tags: ['poll:1'] });
  const got: string[] = [];
  const query = [{ tags: ['poll:1'] }];
  for await (const event of store.follow({ query, afterPosition: position, pollInterval: 50 })) {
    got.push(event.type);
    if (got.length === 1) setTimeout(() => store.append('poll-1', 'any', { type: 'c', tags: ['poll:1'] }), 100);
    if (got.length === 2) break;
  }
  assert.deepEqual(got, ['b', 'c']);
});

test('an event above an open transaction is not given before the events that this one may still store', async () => {
  const client = await admin.connect();
  const got: unknown[] = [];
  const stop = new AbortController();
  await client.query('BEGIN');
  await client.query(`SELECT es_append('gap-1', 'any', 'said', '1')`);
  await store.append('gap-2', 'any', { type: 'said', data: 2 });
  const following = (async () => {
    for await (const event of store.follow({ category: 'gap', pollInterval: 20, signal: stop.signal }))
      got.push(event.data);
  })();
  await sleep(300);
  assert.deepEqual(got, []);
  await client.query('COMMIT');
  client.release();
  await until('both', () => got.length === 2);
  stop.abort();
  await following;
  assert.deepEqual(got, [1, 2]);
});

test('a log that went on from an earlier position is not read on', async () => {
  const { position } = await store.append('lost-1', 'any', { type: 'said' });
  await store.append('lost-1', 'any', { type: 'said' });
  const unknown = '6f1d2a34-0000-4000-8000-00000000000f';
  const following = store.follow({ category: 'lost', afterPosition: position, incarnation: unknown });
  await assert.rejects(following.next(), PositionLostError);
});

test('a filter that the server refuses is an error, and is not repeated', async () => {
  await assert.rejects(store.follow({ query: [] }).next(), { code: '22023' });
});

test('a server that is killed and restarted under load: every event once, in order', async () => {
  const listener = new Listener(direct, 'load');
  const stop = new AbortController();
  const got: FollowedEvent[] = [];
  const following = (async () => {
    const options = { category: 'load', listener, signal: stop.signal, pageSize: 50, pollInterval: 5000 };
    for await (const event of store.follow({ ...options, onError: () => undefined })) got.push(event);
  })();
  let written = 0;
  const id = (n: number) => `6f1d2a34-0000-4000-8001-${String(n).padStart(12, '0')}`;
  const write = async (upto: number) => {
    for (; written < upto; written++)
      for (;;)
        try {
          await store.append(`load-${written % 7}`, 'any', { type: 'said', data: written, id: id(written) });
          break;
        } catch {
          await sleep(20);
        }
  };
  // when the session that listens began; undefined: there is none
  const listening = async (): Promise<string | undefined> => {
    const { rows } = await admin.query(
      `SELECT backend_start::text AS began FROM pg_stat_activity WHERE query LIKE 'LISTEN%load%'`,
    );
    return rows.length === 1 ? rows[0].began : undefined;
  };
  await until('listening', async () => (await listening()) !== undefined);
  const began = await listening();
  await write(200);
  await Promise.all([write(600), crash()]);
  await until('after the crash', () => got.length >= 300);
  await Promise.all([write(1000), restart()]);
  await until('all', () => got.length >= 1000);
  await sleep(200);
  // the listener is back as well: an append is seen long before pollInterval
  await until('listening again', async () => (await listening()) !== undefined);
  assert.notEqual(await listening(), began); // the follower did meet the faults
  const before = performance.now();
  await write(1001);
  await until('the last', () => got.length >= 1001);
  assert(performance.now() - before < 4000);
  stop.abort();
  await following;
  await listener.close();
  assert.deepEqual(new Set(got.map((event) => event.data)).size, 1001);
  assert.equal(got.length, 1001);
  got.slice(1).forEach((event, n) => {
    assert(event.position > (got[n] as FollowedEvent).position);
  });
});
