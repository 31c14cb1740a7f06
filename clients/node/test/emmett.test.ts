// The adapter for emmett. emmett's package has no tests, so what its documents and the tests in its repository say
// is written down here, and runs on its own store in memory, too: a claim that is not emmett's fails there.
import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { after, test } from 'node:test';
import {
  assertThatArray,
  CommandHandler,
  DeciderCommandHandler,
  type EventStore as EmmettStore,
  type Event,
  type ExpectedStreamVersion,
  ExpectedVersionConflictError,
  forwardToMessageBus,
  getInMemoryEventStore,
  getInMemoryMessageBus,
  isExpectedVersionConflictError,
  type ReadEventMetadataWithGlobalPosition,
  WrapEventStore,
} from '@event-driven-io/emmett';
import { EventStore, WrongExpectedVersionError } from 'eventstore-postgres';
import { getEmmettEventStore } from 'eventstore-postgres/emmett';
import { admin, endPools, pooled, store } from './server.js';

type Item = { productId: string; quantity: number; price: number };
type Added = Event<'ProductItemAdded', { productItem: Item }>;
type Discounted = Event<'DiscountApplied', { percent: number }>;
type CartEvent = Added | Discounted;
type Cart = { items: Item[]; amount: number };
type Recorded = Event<'ProductItemAdded', Added['data'], { streamPosition: bigint }>;
type Store = EmmettStore<ReadEventMetadataWithGlobalPosition>;

const item: Item = { productId: 'p1', quantity: 10, price: 3 };
const added: Added = { type: 'ProductItemAdded', data: { productItem: item } };
const discounted: Discounted = { type: 'DiscountApplied', data: { percent: 10 } };
const initialState = (): Cart => ({ items: [], amount: 0 });

function evolve({ items, amount }: Cart, { type, data }: CartEvent): Cart {
  if (type === 'DiscountApplied') return { items, amount: amount * (1 - data.percent / 100) };
  const { productItem } = data;
  return { items: [...items, productItem], amount: amount + productItem.price * productItem.quantity };
}

const handle = CommandHandler<Cart, CartEvent>({ evolve, initialState });
const ours = getEmmettEventStore(store);
const stores: [string, Store][] = [
  ['emmett in memory', getInMemoryEventStore()],
  ['eventstore', ours],
];

after(endPools);

/** The same test on both. */
function onBoth(name: string, run: (store: Store, stream: string) => Promise<void>): void {
  for (const [of, emmett] of stores) test(`${of}: ${name}`, () => run(emmett, `shopping_cart-${randomUUID()}`));
}

function positions(events: readonly { metadata: { streamPosition: bigint } }[]): bigint[] {
  return events.map(({ metadata }) => metadata.streamPosition);
}

function conflict(current: bigint, expected: ExpectedStreamVersion) {
  return (error: unknown): boolean => {
    assert.ok(error instanceof ExpectedVersionConflictError && isExpectedVersionConflictError(error));
    assert.deepEqual([error.current, error.expected, error.errorCode], [String(current), String(expected), 412]);
    return true;
  };
}

onBoth('an append says which version comes next, and whether the stream is new', async (emmett, stream) => {
  assert.equal(await emmett.streamExists(stream), false);
  const first = await emmett.appendToStream<CartEvent>(stream, [added, added]);
  assert.deepEqual([first.nextExpectedStreamVersion, first.createdNewStream], [2n, true]);
  const second = await emmett.appendToStream<CartEvent>(stream, [discounted], { expectedStreamVersion: 2n });
  assert.deepEqual([second.nextExpectedStreamVersion, second.createdNewStream], [3n, false]);
  assert.equal(await emmett.streamExists(stream), true);
  assert.equal(await emmett.streamExists(`${stream}0`), false);
});

onBoth('what is read has type, data, kind and the metadata of a recorded event', async (emmett, stream) => {
  type Seen = Event<'Seen', { deep: { list: (number | null)[] } }, { by: string }>;
  const events: Seen[] = [
    { type: 'Seen', data: { deep: { list: [1, null, 1.5] } }, metadata: { by: 'Ann' } },
    { type: 'Seen', data: { deep: { list: [] } }, metadata: { by: 'Ünal "x"' } },
  ];
  await emmett.appendToStream<Seen>(stream, events);
  const read = await emmett.readStream<Seen>(stream);
  assert.deepEqual([read.currentStreamVersion, read.streamExists], [2n, true]);
  for (const [i, { type, kind, data, metadata }] of read.events.entries()) {
    const { messageId, globalPosition, ...rest } = metadata;
    assert.deepEqual({ type, data, kind }, { type: 'Seen', data: events[i]?.data, kind: 'Event' });
    assert.deepEqual(rest, { by: events[i]?.metadata.by, streamName: stream, streamPosition: BigInt(i + 1) });
    assert.match(messageId, /^[0-9a-f-]{36}$/);
    assert.equal(typeof globalPosition, 'bigint');
  }
  const [one, two] = read.events.map(({ metadata }) => metadata.globalPosition);
  assert.ok(one !== undefined && two !== undefined && one < two);
});

onBoth('a stream that is not there is empty, and at version 0', async (emmett, stream) => {
  const none = { currentStreamVersion: 0n, streamExists: false };
  assert.deepEqual(await emmett.readStream(stream), { ...none, events: [] });
  const { state, ...rest } = await emmett.aggregateStream<Cart, CartEvent>(stream, { evolve, initialState });
  assert.deepEqual([state, rest], [initialState(), none]);
});

onBoth('aggregateStream travels in time by `to`', async (emmett, stream) => {
  for (const event of [added, added, discounted]) await emmett.appendToStream<CartEvent>(stream, [event]);
  const at = (to: bigint) => emmett.aggregateStream<Cart, CartEvent>(stream, { evolve, initialState, read: { to } });
  const states = await Promise.all([1n, 2n, 3n].map(at));
  assert.deepEqual(
    states.map(({ state, currentStreamVersion }) => [state.items.length, state.amount, currentStreamVersion]),
    [
      [1, 30, 1n],
      [2, 60, 2n],
      [2, 54, 3n],
    ],
  );
});

onBoth('every expected version, on a stream that is there and on one that is not', async (emmett, stream) => {
  const versions: [ExpectedStreamVersion | undefined, boolean, boolean][] = [
    [undefined, true, true], // of a new stream, of one at version 2
    ['NO_CONCURRENCY_CHECK', true, true],
    ['STREAM_DOES_NOT_EXIST', true, false],
    ['STREAM_EXISTS', false, true],
    [0n, true, false],
    [1n, false, false],
    [2n, false, true],
    [3n, false, false],
  ];
  for (const [i, [expected, ofNew, ofOld]] of versions.entries()) {
    const options = expected === undefined ? {} : { expectedStreamVersion: expected };
    for (const [name, version, fits] of [
      [`${stream}-new-${i}`, 0n, ofNew],
      [`${stream}-old-${i}`, 2n, ofOld],
    ] as const) {
      if (version > 0n) await emmett.appendToStream<CartEvent>(name, [added, added]);
      const read = (): Promise<unknown> => Promise.resolve().then(() => emmett.readStream(name, options));
      const append = (): Promise<unknown> => emmett.appendToStream<CartEvent>(name, [added], options);
      for (const call of [read, append])
        if (fits) await call();
        else await assert.rejects(call, conflict(version, expected ?? 'NO_CONCURRENCY_CHECK'));
      const { currentStreamVersion } = await emmett.readStream(name);
      assert.equal(currentStreamVersion, version + (fits ? 1n : 0n), `${expected} at ${version}`);
    }
  }
});

onBoth('a command handler returns the new state, the events and the next version', async (emmett, stream) => {
  const one = await handle(emmett, stream, () => added);
  assert.deepEqual([one.createdNewStream, one.nextExpectedStreamVersion], [true, 1n]);
  assertThatArray(one.newEvents).hasSize(1);
  const two = await handle(emmett, stream, [() => [added, discounted], ({ items }) => (items.length > 1 ? added : [])]);
  assert.deepEqual([two.createdNewStream, two.nextExpectedStreamVersion, two.newEvents.length], [false, 4n, 3]);
  assert.deepEqual(two.newState, { items: [item, item, item], amount: 84 });
  const { state } = await emmett.aggregateStream<Cart, CartEvent>(stream, { evolve, initialState });
  assert.deepEqual(state, two.newState);
});

onBoth('a command without events leaves the stream as it is', async (emmett, stream) => {
  const none = await handle(emmett, stream, () => []);
  assert.deepEqual([none.createdNewStream, none.nextExpectedStreamVersion, none.newEvents], [false, 0n, []]);
  assert.equal(await emmett.streamExists(stream), false);
});

onBoth('a command handler fails fast on its expected version', async (emmett, stream) => {
  const none = { expectedStreamVersion: 'STREAM_DOES_NOT_EXIST' as const };
  assert.equal((await handle(emmett, stream, () => added, none)).nextExpectedStreamVersion, 1n);
  const never = (): never => assert.fail('it was asked');
  await assert.rejects(handle(emmett, stream, never, none), conflict(1n, 'STREAM_DOES_NOT_EXIST'));
  await assert.rejects(handle(emmett, stream, never, { expectedStreamVersion: 7n }), conflict(1n, 7n));
});

onBoth('a conflict is retried as often as the options say, and by default not at all', async (emmett, stream) => {
  let tried = 0;
  const interrupted = async (): Promise<CartEvent> => {
    if (tried++ < 2) await emmett.appendToStream<CartEvent>(stream, [added]); // another writer
    return discounted;
  };
  await handle(emmett, stream, () => added);
  const result = await handle(emmett, stream, interrupted, { retry: { onVersionConflict: 5 } });
  assert.deepEqual([tried, result.nextExpectedStreamVersion, result.newState.items.length], [3, 4n, 3]);
  tried = 0;
  await assert.rejects(handle(emmett, stream, interrupted), conflict(5n, 4n));
  assert.equal(tried, 1);
});

onBoth('a decider is asked for one command or several', async (emmett, stream) => {
  type Add = { type: 'Add'; data: { count: number } };
  const decide = ({ data }: Add, { items }: Cart): CartEvent[] => {
    if (items.length + data.count > 3) throw new Error('the cart is full');
    return Array.from({ length: data.count }, () => added);
  };
  const command = DeciderCommandHandler<Cart, Add, CartEvent>({ decide, evolve, initialState });
  const add = (count: number): Add => ({ type: 'Add', data: { count } });
  assert.equal((await command(emmett, stream, add(1))).nextExpectedStreamVersion, 1n);
  assert.equal((await command(emmett, stream, [add(1), add(1)])).newState.items.length, 3);
  await assert.rejects(command(emmett, stream, add(1)), /the cart is full/);
  assert.equal((await emmett.readStream(stream)).currentStreamVersion, 3n);
});

onBoth('events are downcast for the store, and upcast for readers', async (emmett, stream) => {
  type Old = Event<'Added', { productId: string; at: string }>;
  type New = Event<'Added', { product: { id: string }; at: Date }>;
  const upcast = (event: Old): New => ({
    type: 'Added',
    data: { product: { id: event.data.productId }, at: new Date(event.data.at) },
  });
  const downcast = (event: New): Old => ({
    type: 'Added',
    data: { productId: event.data.product.id, at: event.data.at.toISOString() },
  });
  const now: New = { type: 'Added', data: { product: { id: 'p1' }, at: new Date('2026-01-31T20:00:00.5Z') } };
  await emmett.appendToStream<New, Old>(stream, [now], { schema: { versioning: { downcast } } });
  const [stored] = (await emmett.readStream<Old>(stream)).events;
  assert.deepEqual(stored?.data, { productId: 'p1', at: '2026-01-31T20:00:00.500Z' });
  const [upcasted] = (await emmett.readStream<New, Old>(stream, { schema: { versioning: { upcast } } })).events;
  assert.deepEqual([upcasted?.data, upcasted?.metadata.streamPosition], [now.data, 1n]);
});

onBoth("emmett's helper for tests sees what was appended", async (emmett, stream) => {
  const wrapped = WrapEventStore(emmett);
  await wrapped.setup<CartEvent>(stream, [added]);
  await handle(wrapped, stream, () => discounted);
  assert.deepEqual([...wrapped.appendedEvents.values()], [[stream, [discounted]]]);
});

for (const [of, make] of [
  ['emmett in memory', getInMemoryEventStore],
  ['eventstore', (options: object) => getEmmettEventStore(store, options)],
] as [string, (options: object) => Store][])
  test(`${of}: what was appended is forwarded to a message bus, and a hook that fails does no harm`, async (t) => {
    const bus = getInMemoryMessageBus();
    const seen: unknown[] = [];
    const stream = `shopping_cart-${randomUUID()}`;
    bus.subscribe<Recorded>((event: Recorded) => {
      seen.push([event.data, event.metadata.streamPosition]);
    }, 'ProductItemAdded');
    const emmett = make({ hooks: { onAfterCommit: forwardToMessageBus(bus) } });
    await emmett.appendToStream<CartEvent>(stream, [added, discounted]);
    await emmett.appendToStream<CartEvent>(stream, [added]);
    assert.deepEqual(seen, [
      [added.data, 1n],
      [added.data, 3n],
    ]);
    t.mock.method(console, 'error', () => undefined);
    const failing = make({ hooks: { onAfterCommit: () => Promise.reject(new Error('no')) } });
    assert.equal((await failing.appendToStream<CartEvent>(`${stream}0`, [added])).createdNewStream, true);
    assert.equal(await failing.streamExists(`${stream}0`), true);
  });

test('ranges include both ends, and maxCount counts within them', async () => {
  const stream = `shopping_cart-${randomUUID()}`;
  await ours.appendToStream<CartEvent>(stream, new Array<Added>(10).fill(added));
  const read = async (range: { from?: bigint; to?: bigint; maxCount?: bigint }): Promise<unknown> => {
    const { events, currentStreamVersion, streamExists } = await ours.readStream(stream, range);
    assert.deepEqual([currentStreamVersion, streamExists], [10n, true]); // of the whole stream
    return positions(events).map(Number);
  };
  assert.deepEqual(await read({ from: 4n }), [4, 5, 6, 7, 8, 9, 10]);
  assert.deepEqual(await read({ to: 6n }), [1, 2, 3, 4, 5, 6]);
  assert.deepEqual(await read({ from: 3n, to: 7n }), [3, 4, 5, 6, 7]);
  assert.deepEqual(await read({ maxCount: 3n }), [1, 2, 3]);
  assert.deepEqual(await read({ from: 3n, to: 9n, maxCount: 3n }), [3, 4, 5]);
  assert.deepEqual(await read({ from: 3n, to: 4n, maxCount: 5n }), [3, 4]);
  for (const range of [{ from: 21n }, { to: 0n }, { from: 7n, to: 3n }]) assert.deepEqual(await read(range), []);
  const from = (n: bigint) =>
    ours.aggregateStream<Cart, CartEvent>(stream, { evolve, initialState, read: { from: n } });
  assert.deepEqual([(await from(9n)).state.items.length, (await from(9n)).currentStreamVersion], [2, 10n]);
  assert.deepEqual([(await from(11n)).state.items.length, (await from(11n)).currentStreamVersion], [0, 10n]);
  const missing = await ours.readStream(`${stream}0`, { from: 3n, maxCount: 2n });
  assert.deepEqual(missing, { events: [], currentStreamVersion: 0n, streamExists: false });
});

test('whatever is appended and read at random, both stores answer the same', async () => {
  let seed = Number(process.env.SEED ?? Date.now() % 1_000_000);
  console.log(`# random choices: SEED=${seed}`);
  const random = (below: number): number => {
    seed = (seed * 1_103_515_245 + 12_345) % 2_147_483_648;
    return Math.floor((seed / 2_147_483_648) * below);
  };
  const run = randomUUID();
  const expectations: ExpectedStreamVersion[] = ['STREAM_EXISTS', 'STREAM_DOES_NOT_EXIST', 'NO_CONCURRENCY_CHECK'];
  const calls = [
    (emmett: Store, name: string, events: CartEvent[], options: object) => emmett.appendToStream(name, events, options),
    (emmett: Store, name: string, events: CartEvent[], options: object) => handle(emmett, name, () => events, options),
    (emmett: Store, name: string, _: CartEvent[], options: object) => emmett.readStream<CartEvent>(name, options),
    (emmett: Store, name: string, events: CartEvent[], options: object) =>
      emmett.aggregateStream(name, { evolve, initialState, read: { ...options, to: BigInt(events.length) } }),
    (emmett: Store, name: string) => emmett.streamExists(name),
  ];
  const counts = { answers: 0, conflicts: 0 };
  for (let i = 0; i < 400; i++) {
    const name = `shopping_cart-${run}-${random(4)}`;
    const events = Array.from({ length: 1 + random(3) }, () => (random(3) === 0 ? discounted : added));
    const version = random(2) === 0 ? expectations[random(3)] : BigInt(random(40));
    const call = calls[random(calls.length)];
    const options = random(3) === 0 ? {} : { expectedStreamVersion: version };
    const answers = [];
    for (const [, emmett] of stores) {
      const answer = await Promise.resolve()
        .then((): Promise<unknown> | undefined => call?.(emmett, name, events, options))
        .catch((error) => ({ error: error.constructor.name, message: error.message, code: error.errorCode }));
      answers.push(comparable(answer));
    }
    assert.deepEqual(answers[1], answers[0], `step ${i}: ${call} of ${name}`);
    if (JSON.stringify(answers[0]).includes('"error"')) counts.conflicts++;
    else counts.answers++;
  }
  assert.ok(counts.conflicts > 50 && counts.answers > 50, JSON.stringify(counts));
});

/** Without what is each store's own: ids, and positions in the log. */
function comparable(answer: unknown): unknown {
  const own = new Set(['messageId', 'globalPosition', 'lastEventGlobalPosition']);

  return JSON.parse(
    JSON.stringify(answer ?? null, (key, value) =>
      own.has(key) ? undefined : typeof value === 'bigint' ? `${value}n` : value,
    ),
  );
}

test('many handlers of one stream at once: each command once, on the state before it', async () => {
  type Counted = Event<'Counted', { before: number }>;
  const stream = `counter-${randomUUID()}`;
  const count = CommandHandler<number, Counted>({ evolve: (n) => n + 1, initialState: () => 0 });
  const pauses = { retries: 40, minTimeout: 5, maxTimeout: 100, randomize: true };
  const retry = { ...pauses, shouldRetryError: isExpectedVersionConflictError };
  await Promise.all(
    Array.from({ length: 20 }, () =>
      count(ours, stream, (before) => ({ type: 'Counted', data: { before } }), { retry }),
    ),
  );
  const { events } = await ours.readStream<Counted>(stream);
  assert.deepEqual(
    events.map(({ data }) => data.before),
    Array.from({ length: 20 }, (_, i) => i),
  );
});

test('what is special to this store', async () => {
  const stream = `shopping_cart-${randomUUID()}`;
  type Big = Event<'Big', { n: bigint; none?: string | undefined }>;
  const big = await ours.appendToStream<Big>(stream, [{ type: 'Big', data: { n: 2n ** 60n, none: undefined } }]);
  const [read] = (await ours.readStream(stream)).events;
  assert.deepEqual(read?.data, { n: '1152921504606846976' }); // as emmett writes it
  assert.equal(read?.metadata.globalPosition, big.lastEventGlobalPosition);
  const empty = await ours.appendToStream(stream, []);
  assert.deepEqual(empty, { nextExpectedStreamVersion: 1n, lastEventGlobalPosition: null, createdNewStream: false });
  const aggregated = await ours.aggregateStream(stream, { evolve: (n: number) => n + 1, initialState: () => 0 });
  assert.equal(aggregated.state, 1);
  assert.equal(aggregated.streamExists && aggregated.lastEventGlobalPosition, big.lastEventGlobalPosition);
  await assert.rejects(ours.appendToStream(stream, [added], { expectedStreamVersion: 9n }), (error: Error) => {
    assert.ok(error.cause instanceof WrongExpectedVersionError);
    return error.cause.code === 'ES001';
  });
  await assert.rejects(ours.appendToStream('', [added]), { code: '22023' });
});

test('a stream whose first events were removed keeps its versions', async () => {
  const stream = `shopping_cart-${randomUUID()}`;
  await ours.appendToStream<CartEvent>(stream, new Array<Added>(5).fill(added));
  await admin.query('SELECT es_truncate_stream($1, 4)', [stream]);
  const { events, currentStreamVersion } = await ours.readStream<CartEvent>(stream, { to: 4n });
  assert.deepEqual([positions(events), currentStreamVersion], [[4n], 5n]);
  assert.equal((await handle(ours, stream, () => added)).nextExpectedStreamVersion, 6n);
});

test('in a transaction with tables of the program', async () => {
  const stream = `shopping_cart-${randomUUID()}`;
  const client = await pooled.connect();
  try {
    await client.query('BEGIN');
    await handle(getEmmettEventStore(new EventStore(client)), stream, () => added);
    await client.query('ROLLBACK');
  } finally {
    client.release();
  }
  assert.equal(await ours.streamExists(stream), false);
});
