// Numbers keep their digits, both ways.
import assert from 'node:assert/strict';
import test from 'node:test';
import { exact, isNumber, parseJson, toBigInt, writeJson } from '../src/json.js';

test('numbers that a double cannot hold keep their text', () => {
	const text = '{"a":9007199254740993,"b":-12345678901234567890.10,"c":1.10,"d":1e400,"e":5,"f":-0}';
	const value = parseJson(text);
	assert.equal(exact(value.a), '9007199254740993');
	assert.equal(value.e, 5);
	assert.equal(writeJson(value), text);
	assert.equal(toBigInt(value.a), 9007199254740993n);
});

test('digits in strings and keys are left alone', () => {
	const text = String.raw`{"9007199254740993":"9007199254740993","x\"1.10":"a \\\" 1.10","y":"\u0031"}`;
	assert.deepEqual(parseJson(text), JSON.parse(text));
	assert.equal(isNumber(parseJson('"12"')), false);
});

test('a key __proto__ is data', () => {
	assert.equal(writeJson(parseJson('{"__proto__":{"a":1}}')), '{"__proto__":{"a":1}}');
	assert.equal({}.a, undefined);
});
