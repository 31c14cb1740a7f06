// Names functions by parameters of node-postgres, in prepared statements.
const { Client } = require('pg');

async function main() {
  const client = new Client();
  await client.connect();
  const call = async (name, text, ...values) => {
    const { rows } = await client.query({ name, text, values, rowMode: 'array' });
    console.log([name, ...rows[0].filter((value) => value !== '')].join(' '));
  };
  for (const n of ['1', '2']) {
    await call('es_execute', 'SELECT version, events FROM es_execute($1, $2, $3, $4)', 'c-1', 'decide', `{"n": ${n}}`, 'es_merge');
    await call('es_state', 'SELECT state::text, version FROM es_state($1, $2)', 'c-1', 'public.es_merge');
    await call('es_history', 'SELECT count(*) FROM es_history($1, $2)', 'c-1', 'es_last(jsonb, es_recorded_event)');
    await call('es_snapshot', 'SELECT es_snapshot($1, $2::text)', 'c-1', 'es_merge');
    await call('es_receive', 'SELECT es_receive($1, $2, $3, $4)', 't', 'g', n, 'receive');
    await call('es_define_upcaster', 'SELECT es_define_upcaster($1, 1, $2)', 'counted', 'upcast');
  }
  await call('es_create_projection', 'SELECT es_create_projection($1, $2)', 'p', 'handle');
  await call('refused', 'SELECT es_state($1, $2)', 'c-1', 'nothing').catch((error) => console.log('refused', error.code));
  await client.end();
}

main();
