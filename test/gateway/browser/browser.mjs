// What the tests of the console, and its pictures, stand on: a browser, pages by role, SQL.
//
// The environment says where everything is: CONSOLE_URL, CONSOLE_ANONYMOUS_URL (a gateway that serves requests without a
// token, too), CONSOLE_TOKENS (JSON: a token by role), PGHOST and PGDATABASE, PRIVATE_BIN. Each page notes what must never happen: errors of scripts, refusals of the policy, dialogs, and requests
// that leave the origin.
import { execFileSync, spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { chromium } from 'playwright-core';

export const base = process.env.CONSOLE_URL.replace(/\/$/, '');
export const anonymousBase = process.env.CONSOLE_ANONYMOUS_URL.replace(/\/$/, '');
export const tokens = JSON.parse(process.env.CONSOLE_TOKENS);
export const patience = Number(process.env.CONSOLE_PATIENCE ?? 15_000);
const psqlProgram = `${process.env.PRIVATE_BIN}/psql`;
const axe = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');

export function sql(text) {
	return execFileSync(psqlProgram, ['-X', '-q', '-A', '-t', '-v', 'ON_ERROR_STOP=1', '-U', 'postgres', '-c', text],
		{ encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] }).trim();
}

// A session that keeps a transaction open until it is ended.
export function openSession(text, name) {
	const session = spawn(psqlProgram, ['-X', '-q', '-v', 'ON_ERROR_STOP=1', '-U', 'postgres'],
		{ stdio: ['pipe', 'ignore', 'ignore'], env: { ...process.env, PGAPPNAME: name } });
	session.stdin.write(`${text}\n`);
	return {
		end: () => new Promise((resolve) => {
			session.on('exit', resolve);
			session.stdin.end('ROLLBACK;\n');
		}),
	};
}

export async function api(role, method, path, body) {
	const response = await fetch(base + path, {
		method,
		headers: { Authorization: `Bearer ${tokens[role]}`, 'Content-Type': 'application/json' },
		body: body === undefined ? undefined : JSON.stringify(body),
	});
	if (!response.ok) throw new Error(`${method} ${path}: ${response.status} ${await response.text()}`);
	return response.status === 204 ? null : response.json();
}

export async function until(condition, what, limit = patience) {
	const end = Date.now() + limit;
	for (;;) {
		const found = await condition();
		if (found) return found;
		if (Date.now() > end) throw new Error(`${what} did not come in ${limit} ms`);
		await new Promise((resolve) => { setTimeout(resolve, 50); });
	}
}

let browser;

export async function startBrowser() {
	browser = await chromium.launch({
		executablePath: process.env.CHROMIUM || '/usr/bin/chromium',
		args: ['--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage', '--force-color-profile=srgb'],
	});
}

export async function stopBrowser() {
	await browser?.close();
}

export const faults = [];

function watch(page, origin) {
	page.on('pageerror', (error) => faults.push(`error: ${error.message}`));
	page.on('console', (message) => {
		const refused = /status of (401|403|404|409|410|422)|ERR_INTERNET_DISCONNECTED/.test(message.text());
		if (message.type() === 'error' && !refused) faults.push(`console: ${message.text()}`);
	});
	page.on('dialog', (dialog) => {
		faults.push(`dialog: ${dialog.message()}`);
		dialog.dismiss();
	});
	page.on('request', (request) => {
		if (!request.url().startsWith(`${origin}/`)) faults.push(`a request to ${request.url()}`);
	});
}

// A page at an address of the console, signed in as a role; without a role it shows what comes first.
export async function open(role, hash = '#/', { origin = base, ...options } = {}) {
	const context = await browser.newContext({ viewport: { width: 1280, height: 860 }, ...options });
	const page = await context.newPage();
	page.setDefaultTimeout(patience);
	watch(page, origin);
	if (role) {
		await page.addInitScript((token) => {
			if (!sessionStorage.getItem('tested')) {
				sessionStorage.setItem('tested', 'yes');
				sessionStorage.setItem('eventstore-token', token);
			}
		}, tokens[role]);
	}
	await page.goto(`${origin}/${hash}`);
	await page.waitForSelector('main h1');
	return page;
}

export async function go(page, hash) {
	await page.evaluate((to) => new Promise((resolve) => {
		const drawn = () => requestAnimationFrame(() => requestAnimationFrame(() => setTimeout(resolve)));
		if (location.hash === to) drawn();
		else addEventListener('hashchange', drawn, { once: true });
		location.hash = to;
	}), hash);
	await settled(page);
}

// Waits until nothing of the page is loading.
export async function settled(page) {
	await page.waitForSelector('main h1');
	await page.waitForFunction(() => !/Loading…/.test(document.querySelector('main').textContent));
}

// Violations of axe-core's rules, of all or of some, as text.
export async function violations(page, rules) {
	if (!await page.evaluate(() => 'axe' in window)) await page.evaluate(axe);
	const found = await page.evaluate((only) => axe.run(document,
		{ resultTypes: ['violations'], ...(only ? { runOnly: { type: 'rule', values: only } } : {}) }), rules);
	return found.violations.map((one) => `${one.id}: ${one.nodes.slice(0, 3).map((node) => node.html.slice(0, 200)).join(' | ')}`);
}
