// What differs between two JSON values, as a list of { path, kind, before, after } in the order of the paths.
import { isNumber } from './json.js';

function kindOf(value) {
	if (value === null || value === undefined) return 'null';
	if (isNumber(value)) return 'number';
	return Array.isArray(value) ? 'array' : typeof value;
}

function keysOf(before, after) {
	return [...new Set([...Object.keys(before), ...Object.keys(after)])];
}

export function diffJson(before, after, path = []) {
	if (before === after) return [];
	if (before === undefined) return [{ path, kind: 'added', after }];
	if (after === undefined) return [{ path, kind: 'removed', before }];
	const kind = kindOf(before);
	if (kind !== kindOf(after) || (kind !== 'object' && kind !== 'array')) return [{ path, kind: 'changed', before, after }];
	return keysOf(before, after).flatMap((key) => diffJson(
		Object.hasOwn(before, key) ? before[key] : undefined,
		Object.hasOwn(after, key) ? after[key] : undefined, [...path, key]));
}

export function pathText(path) {
	return path.map((key, i) => (/^\d+$/.test(key) ? `[${key}]` : (i ? '.' : '') + key)).join('') || '(state)';
}
