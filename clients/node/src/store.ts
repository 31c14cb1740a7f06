import type { ClientBase, Pool, QueryResult } from 'pg';
import pg from 'pg';
import { PositionLostError, typedError } from './errors.js';
import {
  columns,
  type DeliveredEvent,
  type EventShape,
  type ExpectedVersion,
  eventArguments,
  eventsJson,
  type FollowedEvent,
  type NewEvent,
  type NewEventOf,
  type Query,
  type RecordedEvent,
  type Row,
  recordedEvent,
} from './events.js';
import { follow } from './follow.js';
import type { Listener } from './listener.js';

export interface Appended {
  readonly version: bigint;
  readonly position: bigint;
}

export interface LoadOptions {
  afterVersion?: bigint | number | undefined;
  maxCount?: number | undefined;
  /** Events that one statement reads; 1,000. */
  pageSize?: number | undefined;
}

export interface Filter {
  afterPosition?: bigint | number | undefined;
  category?: string | undefined;
  /** Not with a query, whose items have types of their own. */
  types?: readonly string[] | undefined;
  query?: Query | undefined;
}

export interface ReadOptions extends Filter {
  maxCount?: number | undefined;
  /** Events that one statement reads; 1,000. */
  pageSize?: number | undefined;
}

export interface FollowOptions extends Filter {
  /** That of the event at afterPosition, as it was read; undefined: unknown, and not compared. */
  incarnation?: string | undefined;
  /** Wakes the iterator at once. Without it, only pollInterval does. */
  listener?: Listener | undefined;
  /** Milliseconds between two looks at the log when nothing wakes it; 1,000. */
  pollInterval?: number | undefined;
  pageSize?: number | undefined;
  /** Ends the iterator, without an error. */
  signal?: AbortSignal | undefined;
  /** Gets the errors of lost connections, after which the iterator goes on. */
  onError?: ((error: unknown) => void) | undefined;
}

export interface QueryOptions {
  afterPosition?: bigint | number | undefined;
  maxCount?: number | undefined;
  backward?: boolean | undefined;
  beforePosition?: bigint | undefined;
}

export interface StateOptions<S> {
  /** The state before the first event; {}. */
  initial?: S | undefined;
  atVersion?: bigint | number | undefined;
  /** ISO 8601 with an offset. A Date would cut off microseconds, and so the event of this time. */
  atTime?: string | undefined;
}

export interface ExecuteOptions<S> {
  /** A UUID: the command takes effect once, however often it is repeated. */
  commandId?: string | undefined;
  metadata?: Readonly<Record<string, unknown>> | undefined;
  expected?: ExpectedVersion | undefined;
  initial?: S | undefined;
}

export interface SubscriptionOptions {
  category?: string | readonly string[] | undefined;
  types?: readonly string[] | undefined;
  query?: Query | undefined;
  /** null: after the horizon. */
  startPosition?: bigint | number | null | undefined;
  partitions?: number | undefined;
  /** Milliseconds. */
  lease?: number | undefined;
  maxAttempts?: number | undefined;
  maxInFlight?: number | undefined;
}

export interface PollOptions {
  /** A name that one program has at a time. */
  consumer?: string | undefined;
  maxCount?: number | undefined;
  /** Milliseconds to wait for events if there are none. It takes a connection meanwhile. */
  wait?: number | undefined;
}

const INT8 = 20;

/** bigint as BigInt, whatever the program has set for other queries. */
const types = {
  getTypeParser: ((oid: number, format?: 'text' | 'binary') =>
    oid === INT8 ? BigInt : pg.types.getTypeParser(oid, format as 'text')) as typeof pg.types.getTypeParser,
};

/** The functions of the store, through a pool, or on one connection and in its transaction. */
export class EventStore {
  readonly #db: Pool | ClientBase;

  constructor(db: Pool | ClientBase) {
    this.#db = db;
  }

  /** Appends an event at the expected version of its stream. */
  async append<E extends EventShape = EventShape>(
    stream: string,
    expected: ExpectedVersion,
    event: NewEvent<E>,
  ): Promise<Appended> {
    return this.#one(
      `SELECT version, position FROM es_append($1, $2::text, $3, $4::jsonb, $5::jsonb, $6::uuid, $7::timestamptz,
        $8::text[], $9::bytea)`,
      [stream, String(expected), ...eventArguments(event as NewEvent)],
    );
  }

  /** Appends events to a stream, all or none. The position of an empty batch is null. */
  async appendBatch<E extends EventShape = EventShape>(
    stream: string,
    expected: ExpectedVersion,
    events: readonly NewEvent<E>[],
  ): Promise<{ readonly version: bigint; readonly position: bigint | null }> {
    return this.#one('SELECT version, position FROM es_append_batch($1, $2::text, $3::jsonb)', [
      stream,
      String(expected),
      eventsJson(events as readonly NewEvent[]),
    ]);
  }

  /** Appends events if none that matches the query lies beyond the position. */
  async appendIf<E extends EventShape = EventShape>(
    events: readonly NewEventOf<E>[],
    query: Query,
    afterPosition: bigint | number = 0n,
  ): Promise<{ readonly firstPosition: bigint; readonly position: bigint }> {
    return this.#one(
      `SELECT first_position AS "firstPosition", position FROM es_append_if($1::jsonb, $2::jsonb, $3::bigint)`,
      [eventsJson(events as readonly NewEventOf[]), JSON.stringify(query), afterPosition],
    );
  }

  /** The events of a stream, page by page. */
  async *load<E extends EventShape = EventShape>(
    stream: string,
    options: LoadOptions = {},
  ): AsyncGenerator<RecordedEvent<E>, void, undefined> {
    const sql = `SELECT ${columns} FROM es_load($1, $2::bigint, $3::bigint)`;

    yield* this.#pages<E>(
      options,
      BigInt(options.afterVersion ?? 0),
      (after, count) => this.rows(sql, [stream, after, count]),
      (event) => event.version,
    );
  }

  /** The events of the log up to the horizon, page by page. */
  async *read<E extends EventShape = EventShape>(
    options: ReadOptions = {},
  ): AsyncGenerator<RecordedEvent<E>, void, undefined> {
    yield* this.#pages<E>(
      options,
      BigInt(options.afterPosition ?? 0),
      (after, count) => this.readPage(options, after, count),
      (event) => event.position,
    );
  }

  /** The events of the log, and those that come. It survives lost connections, and ends by its signal alone. */
  follow<E extends EventShape = EventShape>(
    options: FollowOptions = {},
  ): AsyncGenerator<FollowedEvent<E>, void, undefined> {
    return follow<E>(this, options);
  }

  /** The events that match a query; none that matches comes later below the last one. */
  async query<E extends EventShape = EventShape>(
    query: Query,
    options: QueryOptions = {},
  ): Promise<RecordedEvent<E>[]> {
    const rows = await this.rows(
      `SELECT ${columns} FROM es_query($1::jsonb, $2::bigint, $3::bigint, $4::boolean, $5::bigint)`,
      [
        JSON.stringify(query),
        options.afterPosition ?? 0,
        options.maxCount ?? null,
        options.backward ?? false,
        options.beforePosition ?? null,
      ],
    );

    return rows.map(recordedEvent<E>);
  }

  /** The version of the stream's last event; 0n if there is no such stream. */
  async streamVersion(stream: string): Promise<bigint> {
    return (await this.#one<{ version: bigint }>('SELECT es_stream_version($1) AS version', [stream])).version;
  }

  /** The fold of a stream by a reducer of the database. */
  async state<S = unknown>(
    stream: string,
    reducer: string,
    options: StateOptions<S> = {},
  ): Promise<{ readonly state: S | null; readonly version: bigint }> {
    return this.#one('SELECT state, version FROM es_state($1, $2::text, $3::jsonb, $4::bigint, $5::timestamptz)', [
      stream,
      reducer,
      json(options.initial, '{}'),
      options.atVersion ?? null,
      options.atTime ?? null,
    ]);
  }

  /** A command, decided by a function of the database on the state of the locked stream. */
  async execute<S = unknown>(
    stream: string,
    decider: string,
    command: unknown,
    reducer: string,
    options: ExecuteOptions<S> = {},
  ): Promise<{ version: bigint; position: bigint | null; state: S | null; events: number }> {
    const { commandId, metadata, expected = 'any', initial } = options;
    const all = commandId === undefined ? metadata : { ...metadata, command_id: commandId };

    return this.#one(
      `SELECT version, position, state, events
        FROM es_execute($1, $2::text, $3::jsonb, $4::text, $5::jsonb, $6::text, $7::jsonb)`,
      [stream, decider, JSON.stringify(command), reducer, json(all, null), String(expected), json(initial, '{}')],
    );
  }

  /**
   * Waits until the projections have handled the position, so that a program reads its own writes. Returns
   * false if the time, in milliseconds, is over. Call it outside of the transaction that has appended.
   */
  async wait(projections: string | readonly string[], position: bigint, timeout = 5000): Promise<boolean> {
    const deadline = Date.now() + timeout;

    for (const projection of [projections].flat()) {
      const { done } = await this.#one<{ done: boolean }>(
        'SELECT es_wait($1, $2::bigint, make_interval(secs => $3::float8 / 1000)) AS done',
        [projection, position, Math.max(deadline - Date.now(), 0)],
      );
      if (!done) return false;
    }
    return true;
  }

  /** The position up to which no event can come any more. */
  async horizon(): Promise<bigint> {
    return (await this.#one<{ horizon: bigint }>('SELECT es_horizon() AS horizon', [])).horizon;
  }

  /** Creates a subscription; returns false if there is one of this name, which stays as it is. */
  async createSubscription(name: string, options: SubscriptionOptions = {}): Promise<boolean> {
    const given: [string, string, unknown][] = [
      ['category', 'text[]', options.category === undefined ? undefined : [options.category].flat()],
      ['types', 'text[]', options.types],
      ['query', 'jsonb', options.query && JSON.stringify(options.query)],
      ['start_position', 'bigint', options.startPosition],
      ['partitions', 'bigint', options.partitions],
      ['lease', 'interval', options.lease === undefined ? undefined : `${options.lease} ms`],
      ['max_attempts', 'bigint', options.maxAttempts],
      ['max_in_flight', 'bigint', options.maxInFlight],
    ];
    const used = given.filter(([, , value]) => value !== undefined);
    const named = used.map(([argument, type], i) => `, ${argument} => $${i + 2}::${type}`).join('');

    try {
      await this.rows(`SELECT es_create_subscription($1${named})`, [name, ...used.map(([, , value]) => value)]);
      return true;
    } catch (error) {
      if ((error as { code?: unknown }).code === '42710') return false;
      throw error;
    }
  }

  /** The next events of one partition of a subscription. */
  async poll<E extends EventShape = EventShape>(
    subscription: string,
    options: PollOptions = {},
  ): Promise<DeliveredEvent<E>[]> {
    const rows = await this.rows(
      `SELECT token, partition, attempt, ${columns}
        FROM es_poll($1, $2::text, $3::bigint, make_interval(secs => $4::float8 / 1000))`,
      [subscription, options.consumer ?? null, options.maxCount ?? 100, options.wait ?? 0],
    );

    return rows.map((row) => recordedEvent<E>(row) as DeliveredEvent<E>);
  }

  /** Acknowledges a delivery, or its events up to a position, and begins the lease of the rest anew. */
  async ack(subscription: string, token: bigint, uptoPosition?: bigint): Promise<bigint> {
    const values = [subscription, token, uptoPosition ?? null];

    return (await this.#one<{ ack: bigint }>('SELECT es_ack($1, $2::bigint, $3::bigint) AS ack', values)).ack;
  }

  /** Settles an event that could not be handled; returns what was done with it. */
  async nack(
    subscription: string,
    token: bigint,
    position: bigint,
    reason: string,
    action: 'retry' | 'park' | 'skip' = 'retry',
  ): Promise<'retry' | 'park' | 'skip'> {
    const values = [subscription, token, position, reason, action];
    const sql = 'SELECT es_nack($1, $2::bigint, $3::bigint, $4, $5) AS nack';

    return (await this.#one<{ nack: 'retry' | 'park' | 'skip' }>(sql, values)).nack;
  }

  /** Runs a function in a transaction, with a store and the connection, for tables of your own. */
  async transaction<T>(run: (store: EventStore, client: ClientBase) => Promise<T>): Promise<T> {
    if (!isPool(this.#db)) throw new TypeError('this store is on one connection, which has its own transaction');
    const client = await this.#db.connect();
    let broken: Error | undefined;

    // a connection that is lost between two statements fails the next one
    const ignore = (): void => undefined;
    client.on('error', ignore);
    try {
      await client.query('BEGIN');
      const result = await run(new EventStore(client), client);
      await client.query('COMMIT');
      return result;
    } catch (error) {
      await client.query('ROLLBACK').catch((failure: Error) => {
        broken = failure;
      });
      throw typedError(error);
    } finally {
      client.off('error', ignore);
      client.release(broken);
    }
  }

  /** @internal */
  async rows(text: string, values: readonly unknown[]): Promise<Row[]> {
    try {
      const result: QueryResult<Row> = await this.#db.query({ text, values: [...values], types });
      return result.rows;
    } catch (error) {
      throw typedError(error);
    }
  }

  /** @internal */
  async readPage(filter: Filter, after: bigint, count: number, more = ''): Promise<Row[]> {
    const { category, query } = filter;
    const select = `SELECT ${more}${columns} FROM`;

    if (query !== undefined && (category !== undefined || filter.types !== undefined))
      throw new TypeError('a query cannot be combined with category or types');
    if (query !== undefined || category === undefined) {
      const items = query ?? (filter.types && [{ types: filter.types }]);
      return this.rows(`${select} es_read($1::bigint, $2::bigint, $3::jsonb)`, [after, count, json(items, null)]);
    }
    return this.rows(`${select} es_read_category($1, $2::bigint, $3::bigint, $4::text[])`, [
      category,
      after,
      count,
      filter.types ?? null,
    ]);
  }

  /** @internal Throws if the log does not have what was read up to the position any more. */
  async checkPosition(incarnation: string, position: bigint): Promise<void> {
    const { valid } = await this.#one<{ valid: boolean }>('SELECT es_position_valid($1::uuid, $2::bigint) AS valid', [
      incarnation,
      position,
    ]);

    if (!valid) throw new PositionLostError(position, incarnation);
  }

  async #one<T>(text: string, values: readonly unknown[]): Promise<T> {
    return (await this.rows(text, values))[0] as T;
  }

  async *#pages<E extends EventShape>(
    options: { maxCount?: number | undefined; pageSize?: number | undefined },
    after: bigint,
    page: (after: bigint, count: number) => Promise<Row[]>,
    key: (event: RecordedEvent) => bigint,
  ): AsyncGenerator<RecordedEvent<E>, void, undefined> {
    const { maxCount = Number.POSITIVE_INFINITY, pageSize = 1000 } = options;
    let last = after;

    for (let left = maxCount; left > 0; left -= pageSize) {
      const count = Math.min(left, pageSize);
      const rows = await page(last, count);
      for (const row of rows) {
        const event = recordedEvent<E>(row);
        last = key(event as RecordedEvent);
        yield event;
      }
      if (rows.length < count) return;
    }
  }
}

function json(value: unknown, otherwise: string | null): string | null {
  return value === undefined ? otherwise : JSON.stringify(value);
}

function isPool(db: Pool | ClientBase): db is Pool {
  return 'idleCount' in db;
}
