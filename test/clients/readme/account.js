const { Pool } = require('pg');

const pool = new Pool();

async function main() {
// README
  console.log(events.map(({ type }) => type));
  await pool.end();
}

main();
