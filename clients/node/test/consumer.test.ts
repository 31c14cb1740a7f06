import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { after, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import {
  Consumer,
  type ConsumerOptions,
  type DeliveredEvent,
  isTransient,
  Listener,
  NotClaimedError,
  Park,
  retry,
  Skip,
  uuid5,
} from 'eventstore-postgres';
import { admin, crash, direct, endPools, pooled, restart, store, until } from './server.js';

after(endPools);

const quiet: ConsumerOptions = { onError: () => undefined, wait: 200 };

async function say(category: string, streams: number, each: number): Promise<void> {
  for (let n = 1; n <= streams; n++)
    await store.appendBatch(
      `${category}-${n}`,
      'any',
      Array.from({ length: each }, (_, i) => ({ type: 'said', data: i })),
    );
}

async function status(subscription: string): Promise<{ lag: bigint; flight: bigint; parked: bigint }> {
  const { rows } = await admin.query(
    `SELECT sum(lag_events) AS lag, sum(in_flight) AS flight, sum(parked) AS parked
      FROM es_subscription_status WHERE subscription = $1`,
    [subscription],
  );
  return { lag: BigInt(rows[0].lag), flight: BigInt(rows[0].flight), parked: BigInt(rows[0].parked) };
}

test('createSubscription passes its options, and leaves one that is there', async () => {
  const options = {
    ...{ category: ['a', 'b'], types: ['x'], query: [{ tags: ['t'] }], startPosition: null, partitions: 3 },
    ...{ lease: 1500, maxAttempts: 2, maxInFlight: 7 },
  };
  assert.equal(await store.createSubscription('options', options), true);
  assert.equal(await store.createSubscription('options'), false);
  const { rows } =
    await admin.query(`SELECT categories, types, query, partitions, extract(epoch FROM lease)::float8 AS lease,
    max_attempts, max_in_flight FROM es_subscriptions WHERE name = 'options'`);
  assert.deepEqual(rows[0], {
    ...{ categories: ['a', 'b'], types: ['x'], query: [{ tags: ['t'] }], partitions: 3 },
    ...{ lease: 1.5, max_attempts: 2, max_in_flight: 7 },
  });
  await admin.query(`SELECT es_drop_subscription('options')`);
});

test('what fails is delivered again, in the order of its stream; poison is parked, and Skip and Park are obeyed', async () => {
  await say('fail', 4, 5);
  await store.createSubscription('fails', { category: 'fail', maxAttempts: 2 });
  const handled: string[] = [];
  const errors: unknown[] = [];
  const handler = (event: DeliveredEvent): void => {
    const key = `${event.stream}:${event.version}`;
    if (key === 'fail-1:2' && event.attempt === 1) throw new Error('once');
    if (key === 'fail-2:3') throw new Error('always');
    if (key === 'fail-3:2') throw new Skip('not wanted');
    if (key === 'fail-4:4') throw new Park('a person must look');
    handled.push(key);
  };
  const consumer = new Consumer(store, 'fails', handler, {
    ...quiet,
    onError: (error, event) => errors.push([(error as Error).message, event?.stream]),
  });
  const running = consumer.run();
  await until('fails', async () => {
    const { lag, parked } = await status('fails');
    return handled.length === 14 && lag === 0n && parked === 5n;
  });
  await consumer.stop();
  await running;
  const ofStream = (n: number) =>
    handled.filter((key) => key.startsWith(`fail-${n}`)).map((key) => Number(key.split(':')[1]));
  assert.deepEqual([1, 2, 3, 4].map(ofStream), [
    [1, 2, 3, 4, 5],
    [1, 2],
    [1, 3, 4, 5],
    [1, 2, 3],
  ]);
  assert.deepEqual(errors.filter((error) => (error as string[])[0] === 'always').length, 2);
  const { rows } = await admin.query(`SELECT DISTINCT stream, message FROM es_failures WHERE subscription = 'fails'
    AND message IN ('always', 'a person must look') ORDER BY stream`);
  assert.deepEqual(rows, [
    { stream: 'fail-2', message: 'always' },
    { stream: 'fail-4', message: 'a person must look' },
  ]);
});

test('the lease is renewed while a handler takes longer, and is not without renewals', async () => {
  for (const renewInterval of [150, 60_000]) {
    const name = `lease${renewInterval}`;
    await say(name, 1, 2);
    await store.createSubscription(name, { category: name, lease: 600 });
    const handled: string[] = [];
    const errors: unknown[] = [];
    const slow = new Consumer(
      store,
      name,
      async (event) => {
        await sleep(1000);
        handled.push(`slow ${event.version}`);
      },
      { ...quiet, renewInterval, onError: (error) => errors.push(error) },
    );
    const running = slow.run();
    await until('in flight', async () => (await status(name)).flight === 2n);
    const fast = new Consumer(store, name, (event) => void handled.push(`fast ${event.version}`), quiet);
    const beside = fast.run();
    await until('all', async () => (await status(name)).lag === 0n);
    await Promise.all([slow.stop(), fast.stop(), running, beside]);
    if (renewInterval === 150) assert.deepEqual([handled, errors], [['slow 1', 'slow 2'], []]);
    else
      assert(
        handled.includes('fast 1') && errors.every((error) => error instanceof NotClaimedError) && errors.length > 0,
      );
  }
});

test('a handler learns that the events belong to another consumer', async () => {
  await say('taken', 1, 1);
  await store.createSubscription('taken', { category: 'taken' });
  let aborted = 0;
  const errors: unknown[] = [];
  const consumer = new Consumer(
    store,
    'taken',
    async (event, { signal }) => {
      if (event.attempt > 1) return;
      await store.poll('taken', { consumer: consumer.name }); // another program has the same name
      await sleep(20_000, undefined, { signal }).catch(() => aborted++);
      signal.throwIfAborted();
    },
    { ...quiet, renewInterval: 50, onError: (error) => errors.push(error) },
  );
  const running = consumer.run();
  await until('taken', async () => (await status('taken')).lag === 0n);
  await consumer.stop();
  await running;
  assert.equal(aborted, 1);
  assert(errors.length === 1 && errors[0] instanceof NotClaimedError);
});

test('stop finishes the delivery; without grace it finishes the event, and acknowledges up to there', async () => {
  for (const grace of [20_000, 0]) {
    const name = `stop${grace}`;
    await say(name, 1, 8);
    await store.createSubscription(name, { category: name });
    const handled: bigint[] = [];
    const consumer = new Consumer(
      store,
      name,
      async (event) => {
        await sleep(50);
        handled.push(event.version);
      },
      { ...quiet, name },
    );
    const running = consumer.run();
    await until('two', () => handled.length === 2);
    await consumer.stop(grace);
    await running;
    const seen = handled.length;
    assert.equal((await status(name)).lag, BigInt(8 - seen)); // what was handled is acknowledged
    if (grace > 0) assert.equal(seen, 8);
    else assert(seen >= 2 && seen < 8);
    const next = await store.poll(name, { consumer: name });
    assert.deepEqual(
      next.map((event) => event.version),
      [1n, 2n, 3n, 4n, 5n, 6n, 7n, 8n].slice(seen),
    );
  }
});

test('a listener wakes an idle consumer, which takes no connection meanwhile', async () => {
  await store.createSubscription('woken', { category: 'woken' });
  const listener = new Listener(direct);
  let at = 0;
  const options = { ...quiet, listener, pollInterval: 60_000 };
  const consumer = new Consumer(
    store,
    'woken',
    () => {
      at = performance.now();
    },
    options,
  );
  const running = consumer.run();
  for (let n = 0; n < 5; n++) {
    await sleep(300);
    const before = performance.now();
    at = 0;
    await say('woken', 1, 1);
    await until('woken', () => at > 0, 20);
    assert(at - before < 10_000);
  }
  await consumer.stop();
  await listener.close();
  await running;
});

test('a mistake that does not go away ends the run', async () => {
  await assert.rejects(new Consumer(store, 'missing', () => undefined, quiet).run(), { code: '42704' });
});

test('three consumers, and a server that is killed and restarted: every event, each stream in order', async () => {
  const [streams, each] = [40, 50];
  const namespace = randomUUID();
  await store.createSubscription('kills', { category: 'kill', partitions: 4, lease: 2000 });
  await say('kill', streams, each / 2);
  const listener = new Listener(direct, 'kill');
  const handled: { key: string; stream: string; version: bigint; position: bigint; attempt: number; by: string }[] = [];
  const consumers = [1, 2, 3].map((n) => {
    const consumer = new Consumer(
      store,
      'kills',
      async (event) => {
        await pooled.query('SELECT 1').catch(() => undefined); // work that takes a moment
        if (event.position % 97n === 0n && event.attempt === 1) throw new Error('fails at first');
        const { stream, version, position, attempt } = event;
        handled.push({ key: `${stream}:${version}`, stream, version, position, attempt, by: consumer.name });
      },
      { ...quiet, name: `kills-${n}`, maxCount: 20, renewInterval: 500, ...(n === 3 ? {} : { listener }) },
    );
    return consumer;
  });
  const running = Promise.all(consumers.map((consumer) => consumer.run()));
  await until('some', () => handled.length > 200);
  await crash();
  const more = handled.length;
  await until('more', () => handled.length > more + 200);
  await restart();
  for (let n = 1; n <= streams; n++) {
    const events = Array.from({ length: each / 2 }, (_, i) => ({
      type: 'said',
      data: i,
      id: uuid5(namespace, `${n} ${i}`),
    }));
    await retry(() => store.appendBatch(`kill-${n}`, each / 2, events), isTransient, { retries: 30 });
  }
  await until('all', async () => {
    const { lag, parked } = await status('kills');
    return lag === 0n && parked === 0n && new Set(handled.map(({ key }) => key)).size >= streams * each;
  });
  await Promise.all(consumers.map((consumer) => consumer.stop()));
  await listener.close();
  await running;

  assert.equal(new Set(handled.map(({ key }) => key)).size, streams * each);
  assert.equal(new Set(handled.map(({ by }) => by)).size, 3);
  const first = new Map<string, bigint>();
  const seen = new Set<string>();
  for (const { stream, version, key } of handled) {
    if (seen.has(key)) continue;
    seen.add(key);
    assert.equal(version, (first.get(stream) ?? 0n) + 1n, `order of ${stream}`);
    first.set(stream, version);
  }
  const twice = handled.length - seen.size;
  assert(twice <= 2 * 3 * 20, `${twice} were handled twice`); // a delivery of each consumer, for each fault
  console.log(`# ${twice} events handled twice`);
});
