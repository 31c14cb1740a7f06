import { setTimeout as sleep } from 'node:timers/promises';
import { isTransient } from './errors.js';
import { type EventShape, type FollowedEvent, type Row, recordedEvent } from './events.js';
import { Pauses } from './retry.js';
import type { EventStore, FollowOptions } from './store.js';

const INCARNATION = '(SELECT es_incarnation()) AS incarnation, ';

/**
 * Reads the log up to the horizon, waits until something comes, and reads on. A notification says only that it is
 * time to look. The statement that reads also says in which incarnation: if that is another one than before, the log
 * must still have what was read.
 */
export async function* follow<E extends EventShape>(
  store: EventStore,
  options: FollowOptions,
): AsyncGenerator<FollowedEvent<E>, void, undefined> {
  const { listener, signal, pollInterval = 1000, pageSize = 1000 } = options;
  const pauses = new Pauses(50, 5000);
  let position = BigInt(options.afterPosition ?? 0);
  let incarnation = options.incarnation;

  async function nextPage(): Promise<Row[]> {
    const rows = await store.readPage(options, position, pageSize, INCARNATION);
    const now: string | undefined = rows[0]?.incarnation;

    if (incarnation !== undefined && now !== undefined && now !== incarnation)
      await store.checkPosition(incarnation, position);
    incarnation = now ?? incarnation;
    return rows;
  }

  while (!signal?.aborted) {
    const mark = listener?.mark() ?? 0;
    let rows: Row[];
    try {
      rows = await nextPage();
      pauses.reset();
    } catch (error) {
      if (!isTransient(error)) throw error;
      options.onError?.(error);
      await pauses.pause(signal).catch(() => undefined);
      continue;
    }
    for (const row of rows) {
      const event = recordedEvent<E>(row) as FollowedEvent<E>;
      position = event.position;
      yield event;
      if (signal?.aborted) return;
    }
    if (rows.length === pageSize) continue;
    if (listener) await listener.wait(mark, pollInterval, signal);
    else await sleep(pollInterval, undefined, signal && { signal }).catch(() => undefined);
  }
}
