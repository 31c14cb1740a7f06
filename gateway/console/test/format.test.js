import assert from 'node:assert/strict';
import test from 'node:test';
import { ago, integer, rate, seconds } from '../src/format.js';
import { parseJson } from '../src/json.js';

const plain = (text) => text.replace(/[\u00a0\u202f]/g, ' ');

test('integers are grouped, and none is rounded', () => {
	assert.equal(plain(integer(0)), '0');
	assert.equal(plain(integer(1234567)), '1 234 567');
	assert.equal(plain(integer(parseJson('9223372036854775807'))), '9 223 372 036 854 775 807');
	assert.equal(plain(integer(-1234)), '-1 234');
	assert.equal(integer(null), '–');
	assert.equal(plain(integer(parseJson('12345.50'))), '12 345.50');
});

test('durations', () => {
	assert.deepEqual([0, 0.25, 3.21, 59, 61, 3599.9, 7265, 7200, 90061, 90 * 86400].map((n) => plain(seconds(n))),
		['0 s', '250 ms', '3.2 s', '59 s', '1 min 1 s', '59 min 59 s', '2 h 1 min', '2 h', '1 d 1 h', '90 d']);
});

test('rates and ages', () => {
	assert.deepEqual([0, 0.51, 12.6, 123456, null].map((n) => plain(rate(n))), ['0', '0.5', '13', '123 456', '–']);
	assert.equal(plain(ago('2026-01-01T00:00:00Z', Date.parse('2026-01-01T00:01:05Z'))), '1 min 5 s ago');
	assert.equal(ago('2026-01-01T00:00:00Z', Date.parse('2026-01-01T00:00:01Z')), 'just now');
});
