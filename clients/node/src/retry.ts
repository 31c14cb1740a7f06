import { setTimeout as sleep } from 'node:timers/promises';

export interface RetryOptions {
  /** Attempts after the first one; 10. */
  retries?: number | undefined;
  /** Milliseconds of the first pause, which doubles; 10. */
  minPause?: number | undefined;
  /** Milliseconds of the longest pause; 1,000. */
  maxPause?: number | undefined;
  /** Ends the pauses, with its reason. */
  signal?: AbortSignal | undefined;
}

/** Pauses that grow, each drawn at random between half of it and all of it. */
export class Pauses {
  #next: number;

  constructor(
    readonly min: number,
    readonly max: number,
  ) {
    this.#next = min;
  }

  /** Begins anew with the shortest pause. */
  reset(): void {
    this.#next = this.min;
  }

  async pause(signal?: AbortSignal): Promise<void> {
    const milliseconds = this.#next * (0.5 + Math.random() / 2);

    this.#next = Math.min(this.#next * 2, this.max);
    await sleep(milliseconds, undefined, signal && { signal });
  }
}

/** Repeats the attempt while it fails with an error that the function says may be repeated. */
export async function retry<T>(
  attempt: () => Promise<T>,
  mayRepeat: (error: unknown) => boolean,
  options: RetryOptions = {},
): Promise<T> {
  const { retries = 10, minPause = 10, maxPause = 1000, signal } = options;
  const pauses = new Pauses(minPause, maxPause);

  for (let retried = 0; ; retried++) {
    signal?.throwIfAborted();
    try {
      return await attempt();
    } catch (error) {
      if (retried >= retries || !mayRepeat(error)) throw error;
    }
    await pauses.pause(signal);
  }
}
