import { createHash, randomUUID } from 'node:crypto';
import { isConflict, isTransient } from './errors.js';
import type { EventShape, NewEvent, NewEventOf, Query, RecordedEvent } from './events.js';
import { type RetryOptions, retry } from './retry.js';
import type { EventStore } from './store.js';

/** A decision as functions without effects: it may be made more than once, and all but one are discarded. */
export interface Decider<S, C, E extends EventShape, N = NewEvent<E>> {
  initial(): S;
  evolve(state: S, event: RecordedEvent<E>): S;
  /** Returns the events of the command; an exception refuses it. */
  decide(command: C, state: S): readonly N[] | Promise<readonly N[]>;
}

export interface DecideOptions extends RetryOptions {
  /** A UUID that was made before the first attempt, and is kept with the command. By default a new one. */
  commandId?: string | undefined;
}

export interface Decided {
  /** Events of the command; 0: there was nothing to do. */
  readonly events: number;
  /** Position of the last of them; null: there is none. */
  readonly position: bigint | null;
  /** True if an earlier attempt had stored them. */
  readonly repeated: boolean;
}

/** Decided on one stream. */
export interface DecidedOnStream extends Decided {
  /** Version of the command's last event; of the stream, if there was nothing to do. */
  readonly version: bigint;
}

/** A UUID of version 5, as es_uuid5 makes it. */
export function uuid5(namespace: string, name: string): string {
  const bytes = createHash('sha1')
    .update(Buffer.from(namespace.replaceAll('-', ''), 'hex'))
    .update(name)
    .digest()
    .subarray(0, 16);

  bytes.writeUInt8((bytes.readUInt8(6) & 0x0f) | 0x50, 6);
  bytes.writeUInt8((bytes.readUInt8(8) & 0x3f) | 0x80, 8);
  return bytes.toString('hex').replace(/^(.{8})(.{4})(.{4})(.{4})/, '$1-$2-$3-$4-');
}

/** Keeps what the decider throws from being taken for an error of the store, which may be repeated. */
class Refusal {
  constructor(readonly reason: unknown) {}
}

/** The state after events. */
export function fold<S, E extends EventShape>(
  decider: Pick<Decider<S, never, E, unknown>, 'initial' | 'evolve'>,
  events: readonly RecordedEvent<E>[],
): S {
  return events.reduce((state, event) => decider.evolve(state, event), decider.initial());
}

async function decideOnce<S, C, E extends EventShape, N>(
  decider: Decider<S, C, E, N>,
  command: C,
  events: readonly RecordedEvent<E>[],
): Promise<readonly N[]> {
  try {
    return await decider.decide(command, fold(decider, events));
  } catch (reason) {
    throw new Refusal(reason);
  }
}

async function repeat<T>(attempt: () => Promise<T>, options: RetryOptions): Promise<T> {
  try {
    return await retry(attempt, (error) => isConflict(error) || isTransient(error), options);
  } catch (error) {
    throw error instanceof Refusal ? error.reason : error;
  }
}

/** The events that an earlier attempt at the command has stored, in their order. */
function storedOf<E extends EventShape>(
  events: readonly RecordedEvent<E>[],
  idOf: (number: number) => string,
): RecordedEvent<E>[] {
  const byId = new Map(events.map((event) => [event.id, event]));
  const found: RecordedEvent<E>[] = [];

  for (let number = 1; ; number++) {
    const event = byId.get(idOf(number));
    if (event === undefined) return found;
    found.push(event);
  }
}

/**
 * Loads a stream, decides the command on its state, and appends at the version that was loaded. A conflict or a
 * lost connection repeats that; ids that are made of the command's id let it take effect once.
 */
export async function decide<S, C, E extends EventShape>(
  store: EventStore,
  stream: string,
  decider: Decider<S, C, E>,
  command: C,
  options: DecideOptions = {},
): Promise<DecidedOnStream> {
  const commandId = options.commandId ?? randomUUID();
  const idOf = (number: number): string => uuid5(commandId, `${stream}:${number}`);

  return repeat(async () => {
    const loaded: RecordedEvent<E>[] = [];
    for await (const event of store.load<E>(stream)) loaded.push(event);

    const stored = storedOf(loaded, idOf);
    const last = stored.at(-1);
    if (last) return { version: last.version, position: last.position, events: stored.length, repeated: true };

    const decided = await decideOnce(decider, command, loaded);
    const version = loaded.at(-1)?.version ?? 0n;
    if (decided.length === 0) return { version, position: null, events: 0, repeated: false };
    const events = decided.map((event, i) => ({ ...event, id: idOf(i + 1) }));
    const appended = await store.appendBatch(stream, version, events);
    return { ...appended, events: decided.length, repeated: false };
  }, options);
}

/**
 * Reads the events that match a query, decides on them, and appends if none that matches has come meanwhile. The ids
 * are found again only if the query matches the command's own events.
 */
export async function decideOn<S, C, E extends EventShape>(
  store: EventStore,
  query: Query,
  decider: Decider<S, C, E, NewEventOf<E>>,
  command: C,
  options: DecideOptions = {},
): Promise<Decided> {
  const commandId = options.commandId ?? randomUUID();
  const idOf = (number: number): string => uuid5(commandId, String(number));

  return repeat(async () => {
    const found = await store.query<E>(query);
    const stored = storedOf(found, idOf);
    const last = stored.at(-1);
    if (last) return { position: last.position, events: stored.length, repeated: true };

    const decided = await decideOnce(decider, command, found);
    if (decided.length === 0) return { position: null, events: 0, repeated: false };
    const events = decided.map((event, i) => ({ ...event, id: idOf(i + 1) }) as NewEventOf);
    const { position } = await store.appendIf(events, query, found.at(-1)?.position ?? 0n);
    return { position, events: decided.length, repeated: false };
  }, options);
}
