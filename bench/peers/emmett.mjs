// Makes emmett's tables and functions, by emmett itself.
//
//   emmett.mjs CONNECTION          make them
//   emmett.mjs CONNECTION example  then append one event and read it, so that
//                                  the server's log has the statements
import { getPostgreSQLEventStore } from '@event-driven-io/emmett-postgresql';

const [connection, example] = process.argv.slice(2);
const store = getPostgreSQLEventStore(connection);
await store.schema.migrate();
if (example) {
    await store.appendToStream('account-1', [{ type: 'deposited', data: { amount: 5 }, metadata: { user: 'Ann' } }],
        { expectedStreamVersion: 'STREAM_DOES_NOT_EXIST' });
    await store.readStream('account-1');
}
await store.close();
