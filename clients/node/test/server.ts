// What the tests share. test/clients/library-node.sh makes the server, and sets the variables.
import { existsSync, writeFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { EventStore } from 'eventstore-postgres';
import pg from 'pg';

/** A direct connection; the usual variables lead to the server. */
export const direct: pg.ClientConfig = {};
const bouncer: pg.ClientConfig = { host: process.env.BOUNCER_HOST, port: Number(process.env.BOUNCER_PORT) };

/** Stores behind pgbouncer in transaction mode, and beside it. */
export const pooled = makePool(bouncer);
export const admin = makePool(direct);
export const store = new EventStore(pooled);

function makePool(config: pg.ClientConfig): pg.Pool {
  const pool = new pg.Pool({ ...config, max: 10 });

  pool.on('error', () => undefined); // idle connections end with the server
  return pool;
}

export async function endPools(): Promise<void> {
  await Promise.all([pooled.end(), admin.end()]);
}

export async function until(what: string, holds: () => boolean | Promise<boolean>, seconds = 30): Promise<void> {
  const deadline = Date.now() + seconds * 1000;

  while (!(await holds())) {
    if (Date.now() > deadline) throw new Error(`it took too long: ${what}`);
    await sleep(20);
  }
}

/** Kills a process of the server: all sessions end, and the server recovers as after a crash. */
export async function crash(): Promise<void> {
  const client = new pg.Client(direct);
  const gone = new Promise<void>((resolve) => {
    client.on('error', () => resolve());
    client.on('end', () => resolve());
  });

  await client.connect();
  const { rows } = await client.query('SELECT pg_backend_pid() AS pid');
  process.kill(rows[0].pid, 'SIGKILL');
  await gone;
}

/** Stops the server, and starts it again after half a second. */
export async function restart(): Promise<void> {
  const file = process.env.RESTART_FILE ?? '';

  writeFileSync(file, '');
  await until('restart', () => !existsSync(file));
}

export async function collect<T>(iterable: AsyncIterable<T>): Promise<T[]> {
  const all: T[] = [];

  for await (const each of iterable) all.push(each);
  return all;
}
