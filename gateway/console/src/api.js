// The gateway's API: requests with the user's token, problems as errors, event streams.
//
// The token is entered once and lives in sessionStorage, so it ends with the tab. Event streams are read with fetch,
// since an EventSource cannot send the Authorization header.
import { parseJson, writeJson } from './json.js';

const tokenKey = 'eventstore-token';

export function getToken() {
	return sessionStorage.getItem(tokenKey);
}

export function setToken(token) {
	if (token) sessionStorage.setItem(tokenKey, token);
	else sessionStorage.removeItem(tokenKey);
}

let onUnauthorized = () => {};

export function whenUnauthorized(callback) {
	onUnauthorized = callback;
}

export class Problem extends Error {
	constructor(status, body) {
		super(body?.detail || body?.message || body?.title || `The gateway answered ${status}.`);
		this.status = status;
		this.title = body?.title;
		this.hint = body?.hint;
		this.sqlstate = body?.sqlstate;
	}
}

function headersFor(more) {
	const token = getToken();
	return token ? { ...more, Authorization: `Bearer ${token}` } : more;
}

// Adds the parameters that have a value; an array is repeated.
export function withQuery(path, parameters = {}) {
	const query = new URLSearchParams();
	for (const [name, value] of Object.entries(parameters)) {
		for (const one of Array.isArray(value) ? value : [value]) {
			if (one !== undefined && one !== null && one !== '') query.append(name, one);
		}
	}
	const text = query.toString();
	return text ? `${path}?${text}` : path;
}

async function problemOf(response) {
	let body;
	try {
		body = parseJson(await response.text());
	} catch {
		body = undefined;
	}
	if (response.status === 401) onUnauthorized();
	return new Problem(response.status, body);
}

async function send(path, options) {
	let response;
	try {
		response = await fetch(path, { ...options, cache: 'no-cache', credentials: 'omit', redirect: 'error' });
	} catch (error) {
		if (error.name === 'AbortError') throw error;
		throw new Problem(0, { detail: 'The gateway does not answer.' });
	}
	if (!response.ok) throw await problemOf(response);
	return response;
}

// The answer's status and body, and whether it links to a next page.
export async function request(method, path, { body, signal, headers } = {}) {
	const response = await send(path, {
		method,
		signal,
		headers: headersFor({
			Accept: 'application/json',
			...(body === undefined ? {} : { 'Content-Type': 'application/json' }),
			...headers,
		}),
		body: body === undefined ? undefined : writeJson(body),
	});
	const text = await response.text();
	return {
		status: response.status,
		body: text ? parseJson(text) : null,
		more: /;\s*rel="?next\b/.test(response.headers.get('Link') ?? ''),
	};
}

export async function get(path, options) {
	return (await request('GET', path, options)).body;
}

function pause(milliseconds, signal) {
	return new Promise((resolve) => {
		const timer = setTimeout(resolve, milliseconds);
		signal.addEventListener('abort', () => { clearTimeout(timer); resolve(); }, { once: true });
	});
}

// Takes the text of an event stream apart; returns a function that gets it piece by piece. What has an id and no data
// says how far the stream is, although no event there matches.
export function eventStreamParser(onEvent, onRetry = () => {}) {
	let rest = '';
	let event = { data: [] };
	const line = (text) => {
		if (text === '') {
			if (event.data.length || event.id) onEvent({ ...event, data: event.data.length ? event.data.join('\n') : undefined });
			event = { data: [] };
			return;
		}
		const [, field, value] = /^([^:]*):? ?(.*)$/s.exec(text);
		if (field === 'data') event.data.push(value);
		else if (field === 'id') event.id = value;
		else if (field === 'event') event.type = value;
		else if (field === 'retry' && /^\d+$/.test(value)) onRetry(Number(value));
	};
	return (piece) => {
		const lines = (rest + piece).split(/\r\n|\n|\r(?!$)/);
		rest = lines.pop();
		lines.forEach(line);
	};
}

const silence = 90_000;

async function readStream(path, last, signal, onOpen, parse) {
	const response = await send(path, {
		signal,
		headers: headersFor({ Accept: 'text/event-stream', ...(last ? { 'Last-Event-ID': last } : {}) }),
	});
	onOpen();
	const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
	for (;;) {
		let timer;
		const late = new Promise((resolve) => { timer = setTimeout(() => resolve({ done: true }), silence); });
		const { done, value } = await Promise.race([reader.read(), late]);
		clearTimeout(timer);
		if (done) {
			reader.cancel().catch(() => {});
			return;
		}
		parse(value);
	}
}

// Follows an event stream until the signal is aborted, and resumes it after each end.
// onState gets 'connecting', 'live', or a Problem that is worth a look.
export async function follow(path, { after, signal, onEvent, onState }) {
	let last = after;
	let retry = 2000;
	while (!signal.aborted) {
		const parse = eventStreamParser((event) => {
			if (event.id) last = event.id;
			if (event.data !== undefined) onEvent(event);
		}, (milliseconds) => { retry = Math.min(Math.max(milliseconds, 500), 30_000); });
		try {
			onState('connecting');
			await readStream(path, last, signal, () => onState('live'), parse);
		} catch (error) {
			if (signal.aborted) return;
			onState(error);
			if (error.status >= 400 && error.status < 500 && error.status !== 429) return;
		}
		await pause(retry, signal);
	}
}
