import { randomUUID } from 'node:crypto';
import type { ClientBase, Pool } from 'pg';
import { type Decider, fold } from './decide.js';
import type { EventShape, NewEvent, RecordedEvent } from './events.js';
import { EventStore } from './store.js';

/** Events as a store would return them, for tests without one. */
export function recorded<E extends EventShape>(
  events: readonly NewEvent<E>[],
  stream = 'test-1',
  recordedAt = '2026-01-01T00:00:00+00:00',
): RecordedEvent<E>[] {
  return (events as readonly NewEvent[]).map((event, i) => {
    const { type, data = {}, metadata = null, id = randomUUID(), occurredAt, tags = [], body } = event;
    const number = BigInt(i + 1);

    return {
      ...{ position: number, version: number, recordedAt, id, stream, type, data, metadata },
      occurredAt: occurredAt instanceof Date ? occurredAt.toISOString() : (occurredAt ?? null),
      tags: [...new Set(tags)].sort(),
      body: body === undefined ? null : Buffer.from(body),
    } as unknown as RecordedEvent<E>;
  });
}

/** given(decider, event, ...).when(command): what the decider decides, and the state before. */
export function given<S, C, E extends EventShape, N>(decider: Decider<S, C, E, N>, ...events: NewEvent<E>[]) {
  const state = fold(decider, recorded<E>(events));

  return {
    state,
    /** Returns the events of the command; rejects if the decider refuses it. */
    when: async (command: C): Promise<readonly N[]> => decider.decide(command, state),
  };
}

/** Runs a test in a transaction that is rolled back: it sees its own events, and leaves nothing. */
export async function rolledBack<T>(
  pool: Pool,
  test: (store: EventStore, client: ClientBase) => Promise<T>,
): Promise<T> {
  const client = await pool.connect();

  try {
    await client.query('BEGIN');
    return await test(new EventStore(client), client);
  } finally {
    client.release(
      await client.query('ROLLBACK').then(
        () => undefined,
        (error: Error) => error,
      ),
    );
  }
}
