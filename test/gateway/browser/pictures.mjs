// Takes the pictures of doc/guide/console.md, into the folder that is the argument.
// PICTURES=doc/images test/gateway/browser/run calls it after the tests.
import { api, go, open, openSession, settled, sql, startBrowser, stopBrowser, until } from './browser.mjs';

const folder = process.argv[2];
const size = { width: 1120, height: 720 };
const pages = {
	overview: '#/',
	streams: '#/streams?category=account',
	stream: '#/streams/order-12?version=1',
	state: '#/streams/account-7/state?reducer=account.es_reduce&at=4&with=2',
	log: '#/log?category=order',
	types: '#/types',
	type: '#/types/deposited',
	projections: '#/projections',
	projection: '#/projections/slow',
	subscriptions: '#/subscriptions/mails',
	failures: '#/failures',
	inbox: '#/inbox',
	removals: '#/removals',
};

const wait = (milliseconds) => new Promise((resolve) => { setTimeout(resolve, milliseconds); });

// A minute of business, so that the charts have something to show.
async function trade(seconds) {
	const end = Date.now() + seconds * 1000;
	for (let i = 0; Date.now() < end; i += 1) {
		const count = Math.round(6 + 4 * Math.sin(i / 4) + 3 * Math.random());
		await Promise.all(Array.from({ length: count }, (_, n) => api('writer', 'POST', `/v1/streams/order-live${i % 50}`, {
			type: n % 3 ? 'placed' : 'paid', data: { total: 10 + n }, tags: ['customer:ann'],
		})));
		await wait(400);
	}
}

async function take(page, name) {
	await settled(page);
	await page.waitForTimeout(1500);
	await page.screenshot({ path: `${folder}/console-${name}.png` });
}

await startBrowser();
sql(`CREATE OR REPLACE FUNCTION add_to_balance(event es_recorded_event) RETURNS void LANGUAGE sql AS $$
	INSERT INTO balance VALUES (event.stream, (event.data->>'amount')::int)
		ON CONFLICT (account) DO UPDATE SET amount = balance.amount + excluded.amount $$`);
for (const account of ['account-3', 'account-21', 'account-44']) {
	await api('writer', 'POST', `/v1/streams/${account}`, { type: 'deposited', data: { amount: 'a lot' } });
}
sql("SELECT * FROM es_poll('mails', 'mailer-1', max_count => 12)");
sql("SELECT * FROM es_poll('mails', 'mailer-2', max_count => 7)");
const page = await open('operator', '#/', { viewport: size });
const business = trade(Number(process.env.PICTURE_SECONDS ?? 60));
await wait(Number(process.env.PICTURE_SECONDS ?? 60) * 900);
const session = openSession("BEGIN; SELECT es_append('order-live1', 'any', 'paid');", 'nightly import');
await page.getByText('nightly import').waitFor();
await take(page, 'overview');
await session.end();
await business;
await api('operator', 'POST', '/v1/projections/slow/rebuild');
for (const [name, hash] of Object.entries(pages)) {
	if (name === 'overview') continue;
	await go(page, hash);
	if (name === 'failures') {
		for (const box of (await page.getByRole('checkbox', { name: /Choose failure/ }).all()).slice(0, 2)) await box.check();
	}
	if (name === 'projection') {
		await page.getByRole('progressbar').waitFor();
		await until(async () => Number(await page.getByRole('progressbar').getAttribute('aria-valuenow')) > 20, 'progress', 60_000);
	}
	await take(page, name);
}
await page.context().close();
const dark = await open('operator', '#/streams/account-7/state?reducer=account.es_reduce&at=4&with=2', { viewport: size, colorScheme: 'dark' });
await take(dark, 'dark');
const phone = await open('operator', '#/failures', { viewport: { width: 390, height: 780 } });
await take(phone, 'phone');
const door = await open(null, '', { viewport: { width: 720, height: 480 } });
await door.waitForTimeout(500);
await door.screenshot({ path: `${folder}/console-sign-in.png` });
await stopBrowser();
