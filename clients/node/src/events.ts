/** What events look like to a program: a type and data. A union of such types describes a stream. */
export interface EventShape {
  type: string;
  data: unknown;
}

/** What may be given with a new event besides its type and data. */
export interface Attributes {
  metadata?: Readonly<Record<string, unknown>> | undefined;
  /** A UUID that was made before the first attempt. It makes the append safe to repeat. */
  id?: string | undefined;
  /** ISO 8601 with an offset, or a Date, which has milliseconds only. */
  occurredAt?: string | Date | undefined;
  tags?: readonly string[] | undefined;
  /** Bytes that are not JSON. */
  body?: Uint8Array | undefined;
}

/** An event to append. Data may be left out, which is {}, where its type allows undefined. */
export type NewEvent<E extends EventShape = EventShape> = E extends EventShape
  ? Readonly<
      { type: E['type'] } & (undefined extends E['data'] ? { data?: E['data'] } : { data: E['data'] }) & Attributes
    >
  : never;

/** An event of appendIf: its stream is event- and its first tag, unless it is given. */
export type NewEventOf<E extends EventShape = EventShape> = NewEvent<E> & {
  readonly stream?: string | undefined;
  readonly expectedVersion?: ExpectedVersion | undefined;
};

/** An event as it is stored. Times are ISO 8601 with microseconds, which a Date does not have. */
export type RecordedEvent<E extends EventShape = EventShape> = E extends EventShape
  ? {
      readonly position: bigint;
      readonly version: bigint;
      readonly recordedAt: string;
      readonly occurredAt: string | null;
      readonly id: string;
      readonly stream: string;
      readonly type: E['type'];
      readonly data: E['data'];
      readonly metadata: Readonly<Record<string, unknown>> | null;
      readonly tags: readonly string[];
      readonly body: Buffer | null;
    }
  : never;

/** An event of a subscription, with the token of its delivery. */
export type DeliveredEvent<E extends EventShape = EventShape> = RecordedEvent<E> & {
  readonly token: bigint;
  readonly partition: number;
  /** 1 at the first delivery of the event. */
  readonly attempt: number;
};

/** An event of follow, with the incarnation of the store, to be kept beside the position. */
export type FollowedEvent<E extends EventShape = EventShape> = RecordedEvent<E> & { readonly incarnation: string };

export type ExpectedVersion = 'any' | 'none' | 'exists' | bigint | number;

/** An event matches an item if its type is one of the types and it has all the tags. */
export interface QueryItem {
  types?: readonly string[];
  tags?: readonly string[];
}

/** An event matches a query if it matches any of its items. */
export type Query = readonly QueryItem[];

/** The columns of es_recorded_event, as recordedEvent() takes them. */
export const columns = `position, version, to_json(recorded_at) #>> '{}' AS recorded_at,
  to_json(occurred_at) #>> '{}' AS occurred_at, id, stream, type, data, metadata, tags, body`;

// biome-ignore lint/suspicious/noExplicitAny: what comes from the driver
export type Row = Record<string, any>;

export function recordedEvent<E extends EventShape>(row: Row): RecordedEvent<E> {
  const { recorded_at: recordedAt, occurred_at: occurredAt, tags, ...same } = row;

  return { ...same, recordedAt, occurredAt, tags: tags ?? [] } as unknown as RecordedEvent<E>;
}

function isoTime(time: string | Date | undefined): string | undefined {
  return time instanceof Date ? time.toISOString() : time;
}

/** The object of es_append_batch and es_append_if. What is undefined is left out of its JSON. */
function eventObject(event: NewEventOf): Row {
  const { type, data, metadata, id, tags, stream } = event;
  const version = event.expectedVersion;

  return {
    ...{ type, data, metadata, id, tags, stream },
    occurred_at: isoTime(event.occurredAt),
    body: event.body && Buffer.from(event.body).toString('base64'),
    expected_version: typeof version === 'bigint' ? jsonNumber(version) : version,
  };
}

/** Versions are far below the numbers that JSON and JavaScript both have. */
function jsonNumber(version: bigint): number {
  const number = Number(version);

  if (!Number.isSafeInteger(number)) throw new RangeError(`${version} is no version`);
  return number;
}

export function eventsJson(events: readonly NewEventOf[]): string {
  return JSON.stringify(events.map(eventObject));
}

/** The arguments of es_append after the expected version. */
export function eventArguments(event: NewEvent): unknown[] {
  const { type, data, metadata, id, tags, body } = event;

  return [
    type,
    data === undefined ? '{}' : JSON.stringify(data),
    metadata === undefined ? null : JSON.stringify(metadata),
    id ?? null,
    isoTime(event.occurredAt) ?? null,
    tags ?? null,
    body === undefined ? null : Buffer.from(body),
  ];
}
