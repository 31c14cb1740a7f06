import pg, { type ClientConfig } from 'pg';
import { Pauses } from './retry.js';

/**
 * A connection that listens for appends, and wakes any number of consumers and followers. A lost
 * connection is made again. It must lead to the server itself, not through a pooler in transaction mode.
 */
export class Listener {
  readonly #config: ClientConfig;
  readonly #category: string | undefined;
  readonly #waiters = new Set<() => void>();
  readonly #stop = new AbortController();
  readonly #ended: Promise<void>;
  #rings = 0;

  /** category: be woken by appends to its streams only. */
  constructor(config: string | ClientConfig, category?: string) {
    const given = typeof config === 'string' ? { connectionString: config } : config;

    this.#config = { connectionTimeoutMillis: 10_000, query_timeout: 10_000, keepAlive: true, ...given };
    this.#category = category;
    this.#ended = this.#run();
  }

  /** What wait() takes: whatever rings after this call ends the wait. */
  mark(): number {
    return this.#rings;
  }

  /** Waits until something rings after the mark, but for so many milliseconds at most. */
  async wait(mark: number, milliseconds: number, signal?: AbortSignal): Promise<void> {
    if (this.#rings !== mark || signal?.aborted || this.#stop.signal.aborted) return;
    await new Promise<void>((resolve) => {
      const done = (): void => {
        clearTimeout(timer);
        signal?.removeEventListener('abort', done);
        this.#waiters.delete(done);
        resolve();
      };
      const timer = setTimeout(done, milliseconds);
      signal?.addEventListener('abort', done);
      this.#waiters.add(done);
    });
  }

  /** Ends the connection. */
  async close(): Promise<void> {
    this.#stop.abort();
    this.#ring();
    await this.#ended;
  }

  #ring(): void {
    this.#rings++;
    for (const waiter of [...this.#waiters]) waiter();
  }

  async #run(): Promise<void> {
    const pauses = new Pauses(100, 10_000);

    while (!this.#stop.signal.aborted) {
      const client = new pg.Client(this.#config);
      const lost = new Promise<void>((resolve) => {
        client.on('error', () => resolve());
        client.on('end', () => resolve());
      });
      client.on('notification', () => this.#ring());
      try {
        await client.connect();
        await this.#listen(client);
        pauses.reset();
        this.#ring(); // something may have come before
        await this.#watch(client, lost);
      } catch {
        // the next attempt tells whether it is over
      } finally {
        await client.end().catch(() => undefined);
      }
      await pauses.pause(this.#stop.signal).catch(() => undefined);
    }
  }

  async #listen(client: pg.Client): Promise<void> {
    let channel = 'es_events';

    if (this.#category !== undefined) {
      const { rows } = await client.query('SELECT es_channel($1) AS channel', [this.#category]);
      channel = rows[0].channel;
    }
    await client.query(`LISTEN ${client.escapeIdentifier(channel)}`);
  }

  /** Until the connection is lost; a query finds a peer that has gone silently. */
  async #watch(client: pg.Client, lost: Promise<void>): Promise<void> {
    const stopped = new Promise<void>((resolve) => {
      if (this.#stop.signal.aborted) resolve();
      this.#stop.signal.addEventListener('abort', () => resolve());
    });
    let timer: NodeJS.Timeout | undefined;
    const silent = new Promise<void>((resolve) => {
      timer = setInterval(() => client.query('SELECT 1').catch(() => resolve()), 30_000);
    });

    await Promise.race([lost, stopped, silent]);
    clearInterval(timer);
  }
}
