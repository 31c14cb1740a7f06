// Event streams, however their bytes are cut.
import assert from 'node:assert/strict';
import test from 'node:test';
import { eventStreamParser, withQuery } from '../src/api.js';

const text = ': hello\nretry: 1500\n\nid: 7\nevent: placed\ndata: {"a":\ndata: 1}\n\r\nid:8\ndata:x\n\nid: 9\n\n';

test('events come out the same for every cut', () => {
	for (let size = 1; size <= text.length; size += 1) {
		const events = [];
		let retry;
		const parse = eventStreamParser((event) => events.push(event), (ms) => { retry = ms; });
		for (let at = 0; at < text.length; at += size) parse(text.slice(at, at + size));
		assert.deepEqual(events, [{ id: '7', type: 'placed', data: '{"a":\n1}' }, { id: '8', data: 'x' }, { id: '9', data: undefined }]);
		assert.equal(retry, 1500);
	}
});

test('parameters without a value are left out, arrays are repeated', () => {
	assert.equal(withQuery('/x', { a: '', b: null, c: 0, d: ['1', '2&'], e: undefined }), '/x?c=0&d=1&d=2%26');
	assert.equal(withQuery('/x', {}), '/x');
});
