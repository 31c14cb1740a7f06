// eventsource.mjs URL TOKEN QUERY COUNT: follows the log by the package eventsource until it has so many events. Prints a
// line for each event: its id, type and data, and one for each connection. It reconnects by itself, as browsers do.
import { EventSource } from 'eventsource';

const [url, token, query, count] = process.argv.slice(2);
let left = Number(count);
const source = new EventSource(`${url}/v1/events?${query}`, {
	fetch: (input, init) => fetch(input, { ...init, headers: { ...init.headers, Authorization: `Bearer ${token}` } }),
});

function show(event) {
	console.log(JSON.stringify({ id: event.lastEventId, type: event.type, data: JSON.parse(event.data) }));
	if (--left === 0) source.close();
}

source.addEventListener('open', () => console.log('"open"'));
source.addEventListener('error', (event) => console.log(JSON.stringify({ failed: event.code ?? null })));
for (const type of ['message', 'counted', 'noted', 'event']) source.addEventListener(type, show);
