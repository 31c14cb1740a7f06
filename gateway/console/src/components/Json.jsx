// A JSON value, indented and coloured. Text of the database reaches the page as text nodes only.
import { useState } from 'preact/hooks';
import { isNumber, writeJson } from '../json.js';

const most = 20_000;
const part = /("(?:[^"\\]|\\.)*")(\s*:)?|(-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)|(true|false|null)/g;

// Characters that are not seen, or that turn the direction of the text around.
const hidden = /[\u007f-\u009f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]/g;

export function visible(text) {
	return text.replace(hidden, (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, '0')}`);
}

function colour(text) {
	const out = [];
	let last = 0;
	for (const match of text.matchAll(part)) {
		if (match.index > last) out.push(text.slice(last, match.index));
		const kind = match[2] !== undefined ? 'key' : match[1] ? 'string' : match[3] ? 'number' : 'word';
		out.push(<span class={`j-${kind}`}>{match[1] ?? match[0]}</span>);
		if (match[2]) out.push(match[2]);
		last = match.index + match[0].length;
	}
	out.push(text.slice(last));
	return out;
}

export function Json({ value, label }) {
	const [all, setAll] = useState(false);
	const text = visible(writeJson(value, 2) ?? 'null');
	const cut = !all && text.length > most;
	return (
		<div class="json">
			<pre tabIndex="0" role="group" aria-label={label}>{colour(cut ? text.slice(0, most) : text)}</pre>
			{cut && <button onClick={() => setAll(true)}>Show all {text.length} characters</button>}
		</div>
	);
}

// One line of a value, for lists.
export function JsonLine({ value, length = 160 }) {
	if (value === null || value === undefined) return <span class="muted">–</span>;
	const text = visible(typeof value === 'string' && !isNumber(value) ? value : writeJson(value));
	return <code class="line">{text.length > length ? `${text.slice(0, length)}…` : text}</code>;
}
