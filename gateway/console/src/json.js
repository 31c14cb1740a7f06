// JSON whose numbers keep their text.
//
// A number that a double cannot hold as it is written (beyond 2^53, or 1.10) becomes a string that begins with NUL.
// No string of the database has that character, since neither text nor jsonb can hold it.

const token = /"(?:[^"\\]|\\.)*"|-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?/g;

export function parseJson(text) {
	return JSON.parse(text.replace(token, (part) =>
		part[0] === '"' || String(Number(part)) === part ? part : `"\\u0000${part}"`));
}

export function writeJson(value, indent) {
	return JSON.stringify(value, null, indent)?.replace(/"\\u0000(-?[\d.eE+-]+)"/g, '$1');
}

export function isNumber(value) {
	return typeof value === 'number' || (typeof value === 'string' && value[0] === '\0');
}

// The digits of a number, as they were sent.
export function exact(value) {
	return typeof value === 'string' && value[0] === '\0' ? value.slice(1) : String(value);
}

export function toBigInt(value) {
	try {
		return BigInt(exact(value));
	} catch {
		return 0n;
	}
}
