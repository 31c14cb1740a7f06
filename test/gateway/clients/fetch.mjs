// fetch.mjs URL TOKEN STREAM: appends, conflicts, retries and reads by the fetch of Node.js. Prints what it found as JSON.
const [url, token, stream] = process.argv.slice(2);
const authorization = { Authorization: `Bearer ${token}` };

async function send(method, path, { body, headers = {} } = {}) {
	const answer = await fetch(url + path, {
		method,
		headers: { ...authorization, ...(body === undefined ? {} : { 'Content-Type': 'application/json' }), ...headers },
		body: body === undefined ? undefined : JSON.stringify(body),
	});
	const text = await answer.text();
	return {
		status: answer.status,
		etag: answer.headers.get('ETag'),
		link: answer.headers.get('Link'),
		encoding: answer.headers.get('Content-Encoding'),
		body: text === '' ? null : JSON.parse(text),
	};
}

const path = `/v1/streams/${encodeURIComponent(stream)}`;
const id = '018f4e3a-0000-7000-8000-000000000001'.replace(/1$/, String(process.pid % 10)).replace('018f4e3a', process.pid.toString(16).padStart(8, '0'));
const event = { type: 'opened', data: { owner: 'Ann ü', amount: 1.5 }, id };
const result = {
	first: await send('POST', path, { body: event, headers: { 'If-None-Match': '*' } }),
	retry: await send('POST', path, { body: event, headers: { 'If-None-Match': '*' } }),
	conflict: await send('POST', path, { body: { type: 'opened' }, headers: { 'If-None-Match': '*' } }),
	batch: await send('POST', path, { body: Array.from({ length: 25 }, (_, n) => ({ type: 'moved', data: { n } })) }),
};
result.pages = [];
for (let next = `${path}?limit=10`; next !== null;) {
	const page = await send('GET', next);
	result.pages.push(page.body.map((e) => e.version));
	const match = /<([^>]*)>;\s*rel="next"/.exec(page.link ?? '');
	next = match === null ? null : new URL(match[1], url + path).href.slice(new URL(url).origin.length);
}
result.many = await Promise.all(Array.from({ length: 50 }, () => send('GET', `${path}?limit=5`))).then((all) => all.map((a) => a.status));
console.log(JSON.stringify(result));
