// Appends or reads from Node.js, by emmett's own client or by node-postgres, and
// prints the events, or streams, a second.
//
//   client.mjs STORE CLIENTS SECONDS                       appends
//   client.mjs STORE CLIENTS SECONDS NAME STREAMS EVENTS   reads streams of so many events
//
// Opens CLIENTS connections as the environment describes. The event is in
// DATA and METADATA. The streams that are read are account-NAME0 to
// account-NAME(STREAMS - 1).
import pg from 'pg';
import { randomUUID } from 'node:crypto';
import { getPostgreSQLEventStore } from '@event-driven-io/emmett-postgresql';

const [store, clients, seconds, name, streams, events] = process.argv.slice(2);
const pool = new pg.Pool({ max: Number(clients) });
const data = JSON.parse(process.env.DATA);
const metadata = JSON.parse(process.env.METADATA);

const makeEmmett = () =>
    getPostgreSQLEventStore('', { connectionOptions: { pool }, schema: { autoMigration: 'None' } });

const makeAppend = {
    eventstore: () => (stream) => pool.query({
        name: 'append',
        text: "SELECT * FROM es_append($1, 'none', $2, $3, $4)",
        values: [stream, 'deposited', data, metadata],
    }),
    'message-db': () => (stream) => pool.query({
        name: 'append',
        text: 'SELECT message_store.write_message($1, $2, $3, $4, $5, -1)',
        values: [randomUUID(), stream, 'deposited', data, metadata],
    }),
    emmett: () => {
        const emmett = makeEmmett();

        return (stream) => emmett.appendToStream(stream, [{ type: 'deposited', data, metadata }],
            { expectedStreamVersion: 'STREAM_DOES_NOT_EXIST' });
    },
};
const makeRead = {
    eventstore: () => async (stream) => {
        const result = await pool.query({ name: 'load', text: 'SELECT * FROM es_load($1)', values: [stream] });

        return result.rows;
    },
    'message-db': () => async (stream) => {
        const result = await pool.query({
            name: 'load',
            text: 'SELECT * FROM message_store.get_stream_messages($1, 0, $2)',
            values: [stream, events],
        });

        return result.rows;
    },
    emmett: () => {
        const emmett = makeEmmett();

        return async (stream) => (await emmett.readStream(stream)).events;
    },
};

async function readOne(read) {
    const found = await read(`account-${name}${Math.floor(Math.random() * Number(streams))}`);

    if (found.length !== Number(events)) throw new Error(`${store} has read ${found.length} of ${events} events`);
}

let count = 0;
const newStream = () => `c${1 + Math.floor(Math.random() * 100)}-${1e9 + Math.floor(Math.random() * 9e15)}`;
const append = name ? undefined : makeAppend[store]();
const read = name ? makeRead[store]() : undefined;
const once = () => (read ? readOne(read) : append(newStream()));
const start = performance.now();
const end = start + seconds * 1000;

async function work() {
    while (performance.now() < end) {
        await once();
        count++;
    }
}

await Promise.all(Array.from({ length: Number(clients) }, work));
console.log((count / ((performance.now() - start) / 1000)).toFixed(1));
await pool.end();
