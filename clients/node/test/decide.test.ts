import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { after, test } from 'node:test';
import {
  ConditionFailedError,
  type Decider,
  decide,
  decideOn,
  type NewEventOf,
  retry,
  uuid5,
  WrongExpectedVersionError,
} from 'eventstore-postgres';
import { given } from 'eventstore-postgres/testing';
import { admin, collect, crash, endPools, restart, store } from './server.js';

after(endPools);

type Moved = { type: 'moved'; data: { saw: number; amount: number } };

class Refused extends Error {}

const account: Decider<number, number, Moved> = {
  initial: () => 0,
  evolve: (balance, event) => balance + event.data.amount,
  decide: (amount, balance) => {
    if (balance + amount < 0) throw new Refused(`only ${balance} left`);
    return amount === 0 ? [] : [{ type: 'moved', data: { saw: balance, amount } }];
  },
};

test('a decider is tested without a database', async () => {
  const rich = given(account, { type: 'moved', data: { saw: 0, amount: 50 } });
  assert.equal(rich.state, 50);
  assert.deepEqual(await rich.when(-20), [{ type: 'moved', data: { saw: 50, amount: -20 } }]);
  await assert.rejects(given(account).when(-1), Refused);
});

test('uuid5 makes the ids of es_uuid5', async () => {
  const namespace = randomUUID();
  const { rows } = await admin.query('SELECT es_uuid5($1, $2) AS id', [namespace, 'Ä-1:1']);
  assert.equal(uuid5(namespace, 'Ä-1:1'), rows[0].id);
});

test('a command takes effect once, and a refusal is not repeated', async () => {
  const commandId = randomUUID();
  const first = await decide(store, 'account-1', account, 50, { commandId });
  assert.deepEqual({ ...first, position: null }, { version: 1n, position: null, events: 1, repeated: false });
  await decide(store, 'account-1', account, -50);
  const again = await decide(store, 'account-1', account, 50, { commandId });
  assert.deepEqual(again, { ...first, repeated: true });
  let asked = 0;
  const counting = {
    ...account,
    decide: (amount: number, balance: number) => {
      asked++;
      return account.decide(amount, balance);
    },
  };
  await assert.rejects(decide(store, 'account-1', counting, -1), Refused);
  assert.equal(asked, 1);
  const nothing = await decide(store, 'account-1', account, 0);
  assert.deepEqual(nothing, { version: 2n, position: null, events: 0, repeated: false });
});

test('the ids are those of es_execute', async () => {
  const commandId = randomUUID();
  await admin.query(`CREATE FUNCTION move_it(state jsonb, command jsonb) RETURNS jsonb LANGUAGE sql
    RETURN jsonb_build_array(jsonb_build_object('type', 'moved', 'data', command))`);
  const options = { commandId };
  const done = await store.execute('account-2', 'move_it', { saw: 0, amount: 5 }, 'es_merge', options);
  const again = await decide(store, 'account-2', account, 5, options);
  assert.deepEqual([again.repeated, again.version, again.position], [true, 1n, done.position]);
});

test('a decider that is always too late is asked as often as it may be, after pauses that grow', async () => {
  const asked: number[] = [];
  const late: Decider<number, number, Moved> = {
    ...account,
    decide: async (amount, balance) => {
      asked.push(performance.now());
      await store.append('late-1', 'any', { type: 'moved', data: { saw: 0, amount: 0 } });
      return account.decide(amount, balance);
    },
  };
  await assert.rejects(decide(store, 'late-1', late, 1, { retries: 6 }), WrongExpectedVersionError);
  assert.equal(asked.length, 7);
  asked.slice(1).forEach((at, n) => {
    assert(at - (asked[n] as number) >= 5 * 2 ** n - 1, `pause ${n + 1}`);
  });
  asked.length = 0;
  await assert.rejects(decide(store, 'late-1', late, 1, { retries: 0 }), WrongExpectedVersionError);
  assert.equal(asked.length, 1);
  const signal = AbortSignal.timeout(200);
  await assert.rejects(decide(store, 'late-1', late, 1, { retries: 1000, signal }), {
    name: /AbortError|TimeoutError/,
  });
});

test('pauses are drawn at random, between half of each and all of it', async (context) => {
  const at: number[] = [];
  const drawn = context.mock.method(Math, 'random', () => 1 - Number.EPSILON);
  const fail = async () => {
    at.push(performance.now());
    throw new Error('again');
  };
  await assert.rejects(
    retry(fail, () => true, { retries: 4 }),
    /again/,
  );
  assert.equal(drawn.mock.callCount(), 4);
  at.slice(1).forEach((time, n) => {
    assert(time - (at[n] as number) >= 10 * 2 ** n - 1, `pause ${n + 1}`);
  });
});

test('many writers of a stream and a server that is killed: each command once, on the state before it', async () => {
  const [writers, commands] = [6, 25];
  let done = 0;
  const write = async () => {
    for (let n = 0; n < commands; n++) {
      await decide(store, 'busy-1', account, n + 1, { commandId: randomUUID(), retries: 60 });
      done++;
    }
  };
  const faults = async () => {
    while (done < (writers * commands) / 5) await new Promise((resolve) => setTimeout(resolve, 5));
    await crash();
    while (done < (writers * commands) / 2) await new Promise((resolve) => setTimeout(resolve, 5));
    await restart();
  };
  await Promise.all([faults(), ...Array.from({ length: writers }, write)]);

  const events = await collect(store.load<Moved>('busy-1'));
  assert.equal(events.length, writers * commands);
  let balance = 0;
  for (const event of events) {
    assert.equal(event.data.saw, balance);
    balance += event.data.amount;
  }
  assert.equal(balance, (writers * commands * (commands + 1)) / 2);
});

test('decisions on a query: no seat is given twice, and each is found again', async () => {
  type Taken = { type: 'taken'; data: { guest: string } };
  const query = [{ types: ['taken'], tags: ['room:1'] }];
  const room: Decider<string[], string, Taken, NewEventOf<Taken>> = {
    initial: () => [],
    evolve: (guests, event) => [...guests, event.data.guest],
    decide: (guest, guests) => {
      if (guests.length >= 5) throw new Refused('full');
      return [{ type: 'taken', data: { guest }, tags: ['room:1'] }];
    },
  };
  const ids = Array.from({ length: 12 }, () => randomUUID());
  const take = (id: string) => decideOn(store, query, room, id, { commandId: id, retries: 60 });
  const results = await Promise.allSettled(ids.map(take));
  const seated = results.filter((result) => result.status === 'fulfilled');
  assert.equal(seated.length, 5);
  for (const result of results) if (result.status === 'rejected') assert(result.reason instanceof Refused);
  const guests = (await store.query<Taken>(query)).map((event) => event.data.guest);
  assert.equal(new Set(guests).size, 5);
  const repeated = await take(guests[2] as string);
  assert.deepEqual([repeated.repeated, repeated.events], [true, 1]);
  assert.equal((await store.query(query)).length, 5);

  const always: typeof room = {
    ...room,
    decide: async () => {
      await store.append('room-2', 'any', { type: 'taken', data: { guest: 'x' }, tags: ['room:2'] });
      return [{ type: 'taken', data: { guest: 'y' }, tags: ['room:2'] }];
    },
  };
  const tooLate = decideOn(store, [{ tags: ['room:2'] }], always, '', { retries: 2 });
  await assert.rejects(tooLate, ConditionFailedError);
});
