// A shop on an event store, part by part: doc/tutorial/shop.md.
import { createHmac, timingSafeEqual } from 'node:crypto';
import { once } from 'node:events';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { text } from 'node:stream/consumers';
import { setTimeout as sleep } from 'node:timers/promises';
import * as es from 'eventstore-postgres';
import pg from 'pg';

type ShopEvent =
  | { type: 'registered'; data: { email: string } }
  | { type: 'stocked' | 'taken'; data: { product: string; count: number } }
  | { type: 'checked_out'; data: { customer: string } }
  | { type: 'paid'; data: { id: string; cart: string; customer: string } };
type ShopDecider<S, C> = es.Decider<S, C, ShopEvent, es.NewEventOf<ShopEvent>>;

const pool = new pg.Pool();
const store = new es.EventStore(pool);
const secret = process.env.SHOP_SECRET ?? 'of the demo';
const keyed = (value: string) => createHmac('sha256', secret).update(value).digest();

class Refused extends Error {}

const answer = (command: Promise<unknown>): Promise<string> =>
  command.then(
    () => 'done',
    (error) => (error instanceof Refused ? error.message : Promise.reject(error)),
  );

const registering: ShopDecider<boolean, { customer: string; email: string; tag: string }> = {
  initial: () => false,
  evolve: () => true,
  decide({ customer, email, tag }, taken) {
    if (taken) throw new Refused(`${email} is taken`);
    return [{ stream: customer, type: 'registered', data: { email }, tags: [tag] }];
  },
};

function register(customer: string, email: string) {
  const tag = `email:${keyed(email.toLowerCase()).toString('hex')}`;
  return es.decideOn(store, [{ tags: [tag] }], registering, { customer, email, tag });
}

const taking: ShopDecider<{ left: number; open: boolean }, { cart: string; product: string; count: number }> = {
  initial: () => ({ left: 0, open: true }),
  evolve({ left, open }, { type, data }) {
    if (type === 'stocked') return { left: left + data.count, open };
    if (type === 'taken') return { left: left - data.count, open };
    return { left, open: false };
  },
  decide({ cart, product, count }, { left, open }) {
    if (!open) throw new Refused(`${cart} is checked out`);
    if (count > left) throw new Refused(`${left} left`);
    return [{ stream: cart, type: 'taken', data: { product, count }, tags: [cart, product] }];
  },
};

function take(cart: string, product: string, count: number) {
  const query = [
    { types: ['stocked', 'taken'], tags: [product] },
    { types: ['checked_out'], tags: [cart] },
  ];
  return es.decideOn(store, query, taking, { cart, product, count });
}

const checkingOut: es.Decider<string, { cart: string; customer: string }, ShopEvent> = {
  initial: () => 'empty',
  evolve: (_, { type }) => (type === 'taken' ? 'filled' : 'closed'),
  decide({ cart, customer }, state) {
    if (state === 'empty') throw new Refused(`${cart} is empty`);
    return state === 'closed' ? [] : [{ type: 'checked_out', data: { customer }, tags: [cart] }];
  },
};

async function linesOf(cart: string, position: bigint | null): Promise<string> {
  if (position !== null && !(await store.wait('cart_line', position))) console.error('the read model is behind');
  const { rows } = await pool.query('SELECT product, count FROM cart_line WHERE cart = $1 ORDER BY product', [cart]);
  return rows.map(({ product, count }) => `${count} of ${product}`).join(', ');
}

const webhook = createServer(async (request, response) => {
  const payload = await text(request);
  const signature = Buffer.from(String(request.headers['x-signature']), 'hex');
  if (signature.length !== 32 || !timingSafeEqual(signature, keyed(payload))) {
    response.writeHead(401).end('wrong signature');
    return;
  }
  const sql = `SELECT es_receive('payments', 'shop', $1::text, 'on_payment',
    message_id => ($1::text)::jsonb->>'id') AS result`;
  await pool.query(sql, [payload]).then(
    ({ rows }) => response.end(rows[0].result),
    (error) => response.writeHead(500).end(error.code), // so that it is sent again
  );
});

async function pay(payload: string, signature: Buffer): Promise<string> {
  const headers = { 'X-Signature': signature.toString('hex') };
  const { port } = webhook.address() as AddressInfo;
  return (await fetch(`http://127.0.0.1:${port}`, { method: 'POST', body: payload, headers })).text();
}

function send(email: string, words: string): void {
  if (!email.includes('@')) throw new es.Park(`"${email}" is no address`);
  console.log(`mail to ${email}: ${words}`); // with the event's id, so that the mail server knows a repetition
}

async function mail(event: es.DeliveredEvent<ShopEvent>): Promise<void> {
  if (event.type === 'registered') return send(event.data.email, 'welcome');
  if (event.type !== 'paid') return;
  for await (const first of store.load<ShopEvent>(event.data.customer, { maxCount: 1 }))
    if (first.type === 'registered') send(first.data.email, `${event.data.cart} is paid`);
}

async function mailAll(): Promise<void> {
  const mailer = new es.Consumer(store, 'mails', mail, { name: 'mailer-1' });
  const running = mailer.run(); // ends by stop() alone, which a real one calls on SIGTERM
  const left = `SELECT sum(lag_events) > 0 AS left FROM es_subscription_status WHERE subscription = 'mails'`;
  while ((await pool.query(left)).rows[0].left) await sleep(50);
  await mailer.stop();
  await running;
}

await register('customer-1', 'ann@example.org');
console.log('again:', await answer(register('customer-2', 'Ann@example.org')));
await register('customer-3', 'nobody');

const stocked = { type: 'stocked', data: { product: 'product-1', count: 5 }, tags: ['product-1'] };
await store.append('product-1', 'any', stocked);
const { position } = await take('cart-1', 'product-1', 2);
console.log('cart-1:', await linesOf('cart-1', position));
const rivals = ['cart-2', 'cart-3', 'cart-4'].map((cart) => answer(take(cart, 'product-1', 2)));
console.log('three take 2:', (await Promise.all(rivals)).sort().join(', '));
await es.decide(store, 'cart-1', checkingOut, { cart: 'cart-1', customer: 'customer-1' });
console.log('one more:', await answer(take('cart-1', 'product-1', 1)));

webhook.listen(0, '127.0.0.1');
await once(webhook, 'listening');
const payload = JSON.stringify({ id: 'payment-1', cart: 'cart-1', customer: 'customer-1' });
for (const signed of [payload, payload, 'another']) console.log('webhook:', await pay(payload, keyed(signed)));
webhook.close();

await mailAll();
const { rows } = await pool.query(`SELECT stream, message FROM es_failures(subscription => 'mails')`);
for (const { stream, message } of rows) console.log('parked:', stream, message);
await pool.end();
