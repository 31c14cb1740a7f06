// Writes to a store of emmett, and consumes from it, by emmett's own client.
//
//   emmett_store.mjs CONNECTION make
//   emmett_store.mjs CONNECTION fill STREAMS EVENTS BATCH   EVENTS in each stream, BATCH in a call
//   emmett_store.mjs CONNECTION consume PROCESSOR EVENTS    the first EVENTS; prints their global positions
//   emmett_store.mjs CONNECTION write                       reads a number a line, and writes an event with it; prints
//                                                           "ok N", or "error: TEXT" and ends
import { createInterface } from 'node:readline';
import { getPostgreSQLEventStore, postgreSQLEventStoreConsumer } from '@event-driven-io/emmett-postgresql';

const [connectionString, command, ...rest] = process.argv.slice(2);
const store = getPostgreSQLEventStore(connectionString,
    { schema: { autoMigration: command === 'make' ? 'CreateOrUpdate' : 'None' } });
const event = n => ({ type: n % 3 ? 'ItemAdded' : 'ItemRemoved', data: { n, text: `é "${n}" \\` }, metadata: { user: `u${n % 7}` } });

const commands = {
    async make() {
        await store.schema.migrate();
    },
    async fill(streams, events, batch) {
        for (let from = 0; from < Number(events); from += Number(batch)) {
            await Promise.all(Array.from({ length: Number(streams) }, (_, s) => store.appendToStream(`cart-${s}`,
                Array.from({ length: Number(batch) }, (_, i) => event(s * Number(events) + from + i)))));
        }
    },
    async consume(processorId, events) {
        const consumer = postgreSQLEventStoreConsumer({ connectionString, pulling: { batchSize: 10 } });
        const seen = [];
        consumer.reactor({
            processorId,
            stopAfter: () => seen.length >= Number(events),
            eachMessage: message => {
                seen.push(message.metadata.globalPosition);
            },
        });
        await consumer.start();
        await consumer.close();
        console.log(seen.join(' '));
    },
    async write() {
        for await (const line of createInterface({ input: process.stdin })) {
            const n = Number(line);
            try {
                await store.appendToStream(`cart-${n % 5}`, [event(n)]);
                console.log(`ok ${n}`);
            } catch (error) {
                console.log(`error: ${error.message}`);
                break;
            }
        }
    },
};
await commands[command](...rest);
await store.close();
process.exit(0);
