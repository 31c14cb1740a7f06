import assert from 'node:assert/strict';
import test from 'node:test';
import { diffJson, pathText } from '../src/diff.js';

const diff = (before, after) => diffJson(before, after).map((one) => `${one.kind} ${pathText(one.path)}`);

test('nothing differs', () => assert.deepEqual(diff({ a: [1, { b: null }] }, { a: [1, { b: null }] }), []));

test('added, removed, changed, at any depth', () => {
	assert.deepEqual(diff({ a: 1, gone: 2, in: { list: [1, 2] } }, { a: 3, in: { list: [1, 2, 4] }, came: null }),
		['changed a', 'removed gone', 'added in.list[2]', 'added came']);
});

test('another kind of value is a change as a whole', () => {
	assert.deepEqual(diff({ a: { b: 1 } }, { a: [1] }), ['changed a']);
	assert.deepEqual(diff(null, { a: 1 }), ['changed (state)']);
});

test('names of Object.prototype are keys like others', () => {
	assert.deepEqual(diff({}, JSON.parse('{"constructor":1,"toString":2}')), ['added constructor', 'added toString']);
});
