// Writes the events of KurrentDB as lines of JSON, in the order of $all, for kurrentdb.sql.
//
//     npm install @kurrent/kurrentdb-client
//     node kurrentdb.mjs CONNECTION [COMMIT PREPARE] > events.json
//
// COMMIT and PREPARE are the position of the last line of an earlier file, from which it goes on. That event is written
// again, and left out when it is loaded.
import { once } from 'node:events';
import { pathToFileURL } from 'node:url';

const base64 = bytes => Buffer.from(bytes).toString('base64');

// The line of an event, or nothing for an event of the system or a link.
export function toLine({ event }) {
    if (!event || event.streamId.startsWith('$') || event.type.startsWith('$')) return null;
    const { streamId, revision, id, type, created, isJson, data, metadata, position } = event;
    return JSON.stringify({
        streamId, revision: String(revision), id, type, created: created.toISOString(), isJson,
        data: isJson ? data : base64(data),
        metadata: metadata instanceof Uint8Array ? { bytes: base64(metadata) } : metadata,
        position: { commit: String(position.commit), prepare: String(position.prepare) },
    });
}

// Writes lines as fast as the output takes them, and returns how many.
export async function writeLines(events, output) {
    let lines = 0;
    for await (const resolved of events) {
        const line = toLine(resolved);
        if (line === null) continue;
        lines++;
        if (!output.write(line + '\n')) await once(output, 'drain');
    }
    return lines;
}

if (process.argv[1] && import.meta.url === pathToFileURL(process.argv[1]).href) {
    const [connection, commit, prepare] = process.argv.slice(2);
    const { KurrentDBClient, START } = await import('@kurrent/kurrentdb-client');
    const client = KurrentDBClient.connectionString(connection);
    const fromPosition = commit ? { commit: BigInt(commit), prepare: BigInt(prepare ?? commit) } : START;
    const lines = await writeLines(client.readAll({ fromPosition, resolveLinkTos: false }), process.stdout);
    console.error(`${lines} events`);
    await client.dispose();
}
