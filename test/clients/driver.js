// Calls every function in each way in which node-postgres sends parameters (drivers.sql).
//
// Every call is undone.  What was answered goes into the table said: the text of the first
// column of the first row, or the SQLSTATE.
const { Client } = require('pg');

const ELEMENTS = { texts: 'text', jsons: 'json', uuids: 'uuid', times: 'time', classes: 'class', byteas: 'bytea' };

// The value as JavaScript has it.
function native(kind, value) {
  if ((kind === 'int' || kind === 'version') && /^\d+$/.test(value)) return value.length < 16 ? Number(value) : BigInt(value);
  if (kind === 'time') return new Date(value);
  // An array would become an array of PostgreSQL's, and a text or number no JSON.
  if (kind === 'json') return Array.isArray(JSON.parse(value)) ? value : JSON.parse(value);
  if (kind === 'bytea') return Buffer.from(value.slice(2), 'hex');
  if (kind in ELEMENTS) return JSON.parse(value).map((element) => (kind === 'jsons' ? element : native(ELEMENTS[kind], element)));
  return value;
}

async function main() {
  const client = new Client();
  await client.connect();
  const calls = (await client.query('SELECT id, variant, sql, kinds, "values", natives(kinds, "values") FROM calls ORDER BY id')).rows;
  const said = [];

  const answer = async (query) => {
    await client.query('BEGIN');
    try {
      const { rows } = await client.query({ rowMode: 'array', ...query });
      return rows.length > 0 ? rows[0][0] : null;
    } catch (error) {
      if (!error.code) throw error;
      return error.code;
    } finally {
      await client.query('ROLLBACK');
    }
  };
  const ask = async (call, way, query) => {
    const value = await answer(query);
    said.push(['node', way, call.id, value === null ? null : value.toString()]);
  };

  for (const call of calls) {
    const { sql: text, values } = call;
    const objects = call.natives.map((value, i) => native(call.kinds[i], value));
    if (call.variant === 'literal') {
      await ask(call, 'simple', { text });
      continue;
    }
    await ask(call, 'untyped', { text, values });
    await ask(call, 'prepared', { text, values, name: `untyped ${call.id}` });
    await ask(call, 'prepared again', { text, values, name: `untyped ${call.id}` });
    if (call.variant !== 'plain') continue;
    await ask(call, 'native', { text, values: objects });
    await ask(call, 'native prepared', { text, values: objects, name: `native ${call.id}` });
    await ask(call, 'native prepared again', { text, values: objects, name: `native ${call.id}` });
    await ask(call, 'native, results binary', { text, values: objects, binary: true });
  }
  // What is node-postgres' own: what it is, what is answered, and what must be.
  const batch = "SELECT version FROM es_append_batch('a-1', $1, $2::jsonb)";
  const append = "SELECT version FROM es_append('a-1', 4, 'a', $1)";
  const body = Buffer.from("\x00\xff\\'", 'latin1');
  const alone = [
    ['an array as jsonb', await answer({ text: batch, values: [4, [{ type: 'a' }]] }), '22P02'],
    ['an array as a text', await answer({ text: batch, values: [4, JSON.stringify([{ type: 'a' }])] }), '5'],
    ['a text as jsonb', await answer({ text: append, values: ['hello'] }), '22P02'],
    ['a text as a JSON text', await answer({ text: append, values: [JSON.stringify('hello')] }), '5'],
    ['SELECT f()', /^\(5,\d+\)$/.test(await answer({ text: "SELECT es_append('a-1', 4, 'a')" })), true],
    ['SELECT FROM f()', await answer({ text: "SELECT * FROM es_append('a-1', 4, 'a')" }), '5'],
    ['body of es_poll', (await answer({ text: "SELECT body FROM es_poll('bytes', 'c')" })).equals(body), true],
    ['body of es_poll, binary', (await answer({ text: "SELECT body FROM es_poll('bytes', 'c')", binary: true })).equals(body), true],
    ['tags of es_poll', JSON.stringify(await answer({ text: "SELECT tags FROM es_poll('bytes', 'c')" })), '["b","with, comma"]'],
  ];
  for (const row of alone) await client.query("INSERT INTO said_alone VALUES ('node', $1, $2, $3)", row);
  for (const row of said) await client.query('INSERT INTO said VALUES ($1, $2, $3, $4)', row);
  await client.end();
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
