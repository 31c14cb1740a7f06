import { randomUUID } from 'node:crypto';
import { hostname } from 'node:os';
import { isTransient, NotClaimedError } from './errors.js';
import type { DeliveredEvent, EventShape } from './events.js';
import type { Listener } from './listener.js';
import { Pauses, retry } from './retry.js';
import type { EventStore } from './store.js';

/** Does the work of an event. It may run twice for one, so it should be idempotent. An exception is es_nack. */
export type Handler<E extends EventShape> = (event: DeliveredEvent<E>, context: HandlerContext) => Promise<void> | void;

export interface HandlerContext {
  /** Aborted when the grace of stop() is over, or another consumer has the events. */
  readonly signal: AbortSignal;
}

export interface ConsumerOptions {
  /** A name that one running program has at a time: it gets what it has in flight again at once. */
  name?: string | undefined;
  maxCount?: number | undefined;
  /** Wakes the consumer, which then takes no connection while it waits. */
  listener?: Listener | undefined;
  /** Without a listener: milliseconds for which es_poll waits; 2,000. */
  wait?: number | undefined;
  /** With a listener: milliseconds between two polls when nothing wakes it; 1,000. */
  pollInterval?: number | undefined;
  /** Milliseconds between two renewals of the lease; 10,000, a third of the default lease. */
  renewInterval?: number | undefined;
  /** Gets the errors after which the consumer goes on, with the event if a handler failed. Prints by default. */
  onError?: ((error: unknown, event?: DeliveredEvent) => void) | undefined;
}

/** Thrown by a handler: park the event, and do not try again before es_retry. */
export class Park extends Error {
  override readonly name = 'Park';
}

/** Thrown by a handler: never deliver the event again. */
export class Skip extends Error {
  override readonly name = 'Skip';
}

/** Polls a subscription, handles its events in order, and settles them. */
export class Consumer<E extends EventShape = EventShape> {
  readonly name: string;
  readonly #store: EventStore;
  readonly #subscription: string;
  readonly #handler: Handler<E>;
  readonly #options: ConsumerOptions;
  readonly #stopping = new AbortController();
  readonly #graceOver = new AbortController();
  #running: Promise<void> | undefined;

  constructor(store: EventStore, subscription: string, handler: Handler<E>, options: ConsumerOptions = {}) {
    this.name = options.name ?? `${hostname()}-${process.pid}-${randomUUID().slice(0, 8)}`;
    this.#store = store;
    this.#subscription = subscription;
    this.#handler = handler;
    this.#options = options;
  }

  /** Runs until stop() is called. Rejects with an error that does not go away by itself. */
  run(): Promise<void> {
    this.#running ??= this.#run();
    return this.#running;
  }

  /**
   * Finishes the delivery in flight, and ends. After the grace, in milliseconds, it finishes the event in flight
   * alone, and acknowledges up to there. The rest is delivered again.
   */
  async stop(grace = 10_000): Promise<void> {
    const timer = setTimeout(() => this.#graceOver.abort(), grace);

    this.#stopping.abort();
    try {
      await this.#running;
    } finally {
      clearTimeout(timer);
    }
  }

  async #run(): Promise<void> {
    const pauses = new Pauses(50, 5000);

    while (!this.#stopping.signal.aborted) {
      try {
        await this.#next();
        pauses.reset();
      } catch (error) {
        const lostClaim = error instanceof NotClaimedError;
        if (!lostClaim && !isTransient(error)) throw error;
        this.#report(error);
        if (!lostClaim) await pauses.pause(this.#stopping.signal).catch(() => undefined);
      }
    }
  }

  async #next(): Promise<void> {
    const { listener, maxCount, wait = 2000, pollInterval = 1000 } = this.#options;
    const mark = listener?.mark() ?? 0;
    const events = await this.#store.poll<E>(this.#subscription, {
      consumer: this.name,
      maxCount,
      wait: listener ? 0 : wait,
    });

    if (events.length > 0) await this.#deliver(events);
    else await listener?.wait(mark, pollInterval, this.#stopping.signal);
  }

  async #deliver(events: readonly DeliveredEvent<E>[]): Promise<void> {
    const token = (events[0] as DeliveredEvent).token;
    const lease = new Lease(this.#store, this.#subscription, token, this.#options.renewInterval ?? 10_000);
    const abort = (): void => lease.claim.abort();
    const failed = new Set<string>();
    let left = events.length;

    this.#graceOver.signal.addEventListener('abort', abort);
    try {
      for (const event of events) {
        if (lease.lost) throw lease.lost;
        if (this.#graceOver.signal.aborted) break;
        // an event behind one that failed comes again after it
        if (!failed.has(event.stream) && !(await this.#handle(event, lease))) failed.add(event.stream);
        lease.done = event.position;
        left--;
      }
    } finally {
      this.#graceOver.signal.removeEventListener('abort', abort);
      await lease.end();
    }
    await this.#settle(() => this.#store.ack(this.#subscription, token, left === 0 ? undefined : lease.done));
  }

  /** Returns false if the event was not handled, and was settled by es_nack. */
  async #handle(event: DeliveredEvent<E>, lease: Lease): Promise<boolean> {
    try {
      await this.#handler(event, { signal: lease.claim.signal });
      return true;
    } catch (error) {
      if (lease.lost) throw lease.lost;
      this.#report(error, event as DeliveredEvent);
      const reason = error instanceof Error ? error.message : String(error);
      const action = error instanceof Park ? 'park' : error instanceof Skip ? 'skip' : 'retry';
      const { token, position } = event;
      await this.#settle(() => this.#store.nack(this.#subscription, token, position, reason, action));
      return action === 'skip';
    }
  }

  /** A lost connection must not lose what was done: the token is valid on another one. */
  async #settle(call: () => Promise<unknown>): Promise<void> {
    await retry(call, isTransient, { minPause: 50 });
  }

  #report(error: unknown, event?: DeliveredEvent): void {
    if (this.#options.onError) this.#options.onError(error, event);
    else console.error(`consumer "${this.name}" of "${this.#subscription}":`, error);
  }
}

/** Renews the lease of a delivery while its events are handled, by acknowledging those that are done. */
class Lease {
  /** Up to where events are handled or settled; 0: none is, and es_ack only begins the lease anew. */
  done = 0n;
  /** Why the events belong to another consumer. */
  lost: NotClaimedError | undefined;
  readonly claim = new AbortController();
  readonly #timer: NodeJS.Timeout;
  #renewal: Promise<void> = Promise.resolve();

  constructor(store: EventStore, subscription: string, token: bigint, interval: number) {
    let renewing = false;

    this.#timer = setInterval(() => {
      if (renewing) return;
      renewing = true;
      this.#renewal = this.#renew(() => store.ack(subscription, token, this.done)).finally(() => {
        renewing = false;
      });
    }, interval);
  }

  /** No renewal runs beside what comes after. */
  async end(): Promise<void> {
    clearInterval(this.#timer);
    await this.#renewal;
  }

  /** A renewal that fails otherwise is tried again at the next time. */
  async #renew(ack: () => Promise<unknown>): Promise<void> {
    try {
      await ack();
    } catch (error) {
      if (!(error instanceof NotClaimedError)) return;
      this.lost = error;
      this.claim.abort(error);
    }
  }
}
