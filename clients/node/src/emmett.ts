import {
  type AggregateStreamOptions,
  type AggregateStreamResultWithGlobalPosition,
  type AppendToStreamOptions,
  type AppendToStreamResult,
  assertExpectedVersionMatchesCurrent,
  type DefaultEventStoreOptions,
  downcastRecordedMessages,
  type EventStore as EmmettStore,
  type Event,
  type ExpectedStreamVersion,
  ExpectedVersionConflictError,
  JSONParser,
  NO_CONCURRENCY_CHECK,
  type ReadEvent,
  type ReadEventMetadataWithGlobalPosition,
  type ReadStreamOptions,
  type ReadStreamResult,
  tryPublishMessagesAfterCommit,
  upcastRecordedMessages,
} from '@event-driven-io/emmett';
import { WrongExpectedVersionError } from './errors.js';
import type { ExpectedVersion, NewEvent, RecordedEvent } from './events.js';
import type { EventStore } from './store.js';

type Metadata = ReadEventMetadataWithGlobalPosition;

/** The interface of emmett's stores, with the positions of the log as its global positions. */
export interface EmmettEventStore extends EmmettStore<Metadata> {
  aggregateStream<S, E extends Event, P extends Event = E>(
    streamName: string,
    options: AggregateStreamOptions<S, E, Metadata, P>,
  ): Promise<AggregateStreamResultWithGlobalPosition<S>>;

  appendToStream<E extends Event, P extends Event = E>(
    streamName: string,
    events: E[],
    options?: AppendToStreamOptions<bigint, E, P>,
  ): Promise<AppendToStreamResult & { lastEventGlobalPosition: bigint | null }>;
}

export type EmmettOptions = DefaultEventStoreOptions<EmmettEventStore>;

/** A version of a stream that has no event. */
const NONE = 0n;

const words: Record<string, ExpectedVersion> = {
  NO_CONCURRENCY_CHECK: 'any',
  STREAM_DOES_NOT_EXIST: 'none',
  STREAM_EXISTS: 'exists',
};

function expectedVersion(expected: ExpectedStreamVersion | undefined): ExpectedVersion {
  return typeof expected === 'bigint' ? expected : (words[expected ?? NO_CONCURRENCY_CHECK] as ExpectedVersion);
}

/** Its JSON, as emmett makes it: a bigint is a string there. */
function plain<T>(value: T): T {
  return JSON.parse(JSONParser.stringify(value as object)) as T;
}

function newEvent(event: Event): NewEvent {
  const metadata = 'metadata' in event ? (event.metadata as Record<string, unknown> | undefined) : undefined;

  return plain({ type: event.type, data: event.data, metadata });
}

function readEvent<E extends Event>(event: RecordedEvent): ReadEvent<E, Metadata> {
  const { id, stream, version, position, type, data, metadata } = event;
  const recorded = { messageId: id, streamName: stream, streamPosition: version, globalPosition: position };

  return { type, data, kind: 'Event', metadata: { ...metadata, ...recorded } } as unknown as ReadEvent<E, Metadata>;
}

/** The events of a stream between two versions, and the version of the whole stream when they were read. */
async function loadRange(
  store: EventStore,
  stream: string,
  range: { from?: bigint | undefined; to?: bigint | undefined; maxCount?: bigint | undefined },
): Promise<{ version: bigint; events: RecordedEvent[] }> {
  const { from = 1n, to, maxCount } = range;
  const events: RecordedEvent[] = [];
  const whole = from <= 1n && to === undefined && maxCount === undefined;
  // asked first: an event that comes in between is not counted, as it is not read
  const version = whole ? undefined : await store.streamVersion(stream);
  const last = version !== undefined && (to === undefined || to > version) ? version : to;
  const afterVersion = from > 1n ? from - 1n : NONE;
  const count = maxCount === undefined ? undefined : Number(maxCount);

  if (last === undefined || last > afterVersion)
    for await (const event of store.load(stream, { afterVersion, maxCount: count })) {
      if (last !== undefined && event.version > last) break;
      events.push(event);
    }
  return { version: version ?? events.at(-1)?.version ?? NONE, events };
}

/**
 * The store as one of emmett's, for its command handlers and whatever takes its EventStore. Versions and positions
 * are those of the store. Ranges of readStream include both ends.
 */
export function getEmmettEventStore(store: EventStore, options: EmmettOptions = {}): EmmettEventStore {
  async function readStream<E extends Event, P extends Event = E>(
    streamName: string,
    read: ReadStreamOptions<bigint, E, P> = {},
  ): Promise<ReadStreamResult<E, Metadata>> {
    const { version, events } = await loadRange(store, streamName, read);

    assertExpectedVersionMatchesCurrent(version, read.expectedStreamVersion, NONE);
    return {
      currentStreamVersion: version,
      events: upcastRecordedMessages(events.map(readEvent) as never[], read.schema?.versioning as never),
      streamExists: version > NONE,
    };
  }

  /** A hook that fails does not fail the append, which is stored. */
  async function publish(streamName: string, afterVersion: bigint, maxCount: number): Promise<void> {
    const { hooks } = options;
    if (hooks?.onAfterCommit === undefined) return;
    const loaded = async (): Promise<void> => {
      const events: ReadEvent<Event, Metadata>[] = [];
      for await (const event of store.load(streamName, { afterVersion, maxCount })) events.push(readEvent(event));
      await hooks.onAfterCommit?.(events);
    };

    await tryPublishMessagesAfterCommit<EmmettEventStore>([], { onAfterCommit: loaded });
  }

  return {
    readStream,

    async aggregateStream(streamName, { evolve, initialState, read }) {
      const { events, currentStreamVersion, streamExists } = await readStream(streamName, read);
      const fold = evolve as (state: ReturnType<typeof initialState>, event: unknown) => typeof state;
      const last = events.at(-1)?.metadata as Metadata | undefined;
      const before = (read?.from ?? 1n) - 1n; // what the state is after if there was nothing to fold
      const version = last?.streamPosition ?? (before < currentStreamVersion ? before : currentStreamVersion);
      const result = { state: events.reduce(fold, initialState()), currentStreamVersion: version, streamExists };

      return { ...result, ...(last && { lastEventGlobalPosition: last.globalPosition }) } as never;
    },

    async appendToStream(streamName, events, append = {}) {
      const { expectedStreamVersion: expected, schema } = append;
      const stored = downcastRecordedMessages(events as never[], schema?.versioning as never) as Event[];

      try {
        const result = await store.appendBatch(streamName, expectedVersion(expected), stored.map(newEvent));
        const before = result.version - BigInt(stored.length);
        await publish(streamName, before, stored.length);
        return {
          nextExpectedStreamVersion: result.version,
          lastEventGlobalPosition: result.position,
          createdNewStream: stored.length > 0 && before === NONE,
        };
      } catch (error) {
        if (!(error instanceof WrongExpectedVersionError)) throw error;
        const conflict = new ExpectedVersionConflictError(error.actual as bigint, expected ?? NO_CONCURRENCY_CHECK);
        throw Object.assign(conflict, { cause: error });
      }
    },

    async streamExists(streamName) {
      return (await store.streamVersion(streamName)) > NONE;
    },
  };
}
