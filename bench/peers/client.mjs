// Appends from Node.js, by emmett's own client or by node-postgres, and says how
// many events a second that was.
//
//   client.mjs STORE CLIENTS SECONDS
//
// Connects as the environment says, with so many connections. The event is in
// DATA and METADATA.
import pg from 'pg';
import { randomUUID } from 'node:crypto';
import { getPostgreSQLEventStore } from '@event-driven-io/emmett-postgresql';

const [store, clients, seconds] = process.argv.slice(2);
const pool = new pg.Pool({ max: Number(clients) });
const data = JSON.parse(process.env.DATA);
const metadata = JSON.parse(process.env.METADATA);

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
        const emmett = getPostgreSQLEventStore('', { connectionOptions: { pool }, schema: { autoMigration: 'None' } });

        return (stream) => emmett.appendToStream(stream, [{ type: 'deposited', data, metadata }],
            { expectedStreamVersion: 'STREAM_DOES_NOT_EXIST' });
    },
};
const append = makeAppend[store]();

let count = 0;
const newStream = () => `c${1 + Math.floor(Math.random() * 100)}-${1e9 + Math.floor(Math.random() * 9e15)}`;
const start = performance.now();
const end = start + seconds * 1000;

async function work() {
    while (performance.now() < end) {
        await append(newStream());
        count++;
    }
}

await Promise.all(Array.from({ length: Number(clients) }, work));
console.log(Math.round(count / ((performance.now() - start) / 1000)));
await pool.end();
