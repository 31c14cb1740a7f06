// The shell: sign-in, navigation, the page of the route.
import { render } from 'preact';
import { useCallback, useEffect, useRef, useState } from 'preact/hooks';
import { get, getToken, setToken, whenUnauthorized } from './api.js';
import { useRoute } from './route.js';
import { exact } from './json.js';
import { paths } from './paths.js';
import { startSamples } from './samples.js';
import { Toasts } from './components/Toasts.jsx';
import { Page, Empty } from './components/basics.jsx';
import { SignIn } from './pages/SignIn.jsx';
import { Overview } from './pages/Overview.jsx';
import { Streams } from './pages/Streams.jsx';
import { Stream } from './pages/Stream.jsx';
import { Log } from './pages/Log.jsx';
import { Types, Type } from './pages/Types.jsx';
import { Projections, Projection } from './pages/Projections.jsx';
import { Subscriptions, Subscription } from './pages/Subscriptions.jsx';
import { Failures, Failure } from './pages/Failures.jsx';
import { Inbox } from './pages/Inbox.jsx';
import { Removals } from './pages/Removals.jsx';
import './style.css';

const pages = [
	{ path: '', label: 'Overview', list: Overview },
	{ path: 'streams', label: 'Streams', list: Streams, one: Stream },
	{ path: 'log', label: 'Log', list: Log },
	{ path: 'types', label: 'Event types', list: Types, one: Type },
	{ path: 'projections', label: 'Projections', list: Projections, one: Projection },
	{ path: 'subscriptions', label: 'Subscriptions', list: Subscriptions, one: Subscription },
	{ path: 'failures', label: 'Failures', list: Failures, one: Failure },
	{ path: 'inbox', label: 'Inbox', list: Inbox },
	{ path: 'removals', label: 'Removals', list: Removals },
];

const themeKey = 'eventstore-theme';

// The theme that the user has chosen; without a choice the style sheet follows the system.
function applyTheme(theme) {
	if (theme === 'system') delete document.documentElement.dataset.theme;
	else document.documentElement.dataset.theme = theme;
}

function useTheme() {
	const [chosen, setChosen] = useState(localStorage.getItem(themeKey) ?? 'system');
	// At once, since an effect waits for the next drawing, and the page may be left before.
	const choose = (theme) => {
		applyTheme(theme);
		if (theme === 'system') localStorage.removeItem(themeKey);
		else localStorage.setItem(themeKey, theme);
		setChosen(theme);
	};
	return [chosen, choose];
}

function Account({ who, onSignOut }) {
	const [theme, setTheme] = useTheme();
	return (
		<div class="account">
			<p class="muted">Role <strong><bdi>{who.role}</bdi></strong></p>
			<div>
				<label for="theme" class="hidden">Theme</label>
				<select id="theme" value={theme} onChange={(event) => setTheme(event.currentTarget.value)}>
					<option value="system">As the system</option>
					<option value="light">Light</option>
					<option value="dark">Dark</option>
				</select>
			</div>
			<div><button onClick={onSignOut}>{getToken() ? 'Sign out' : 'Sign in'}</button></div>
		</div>
	);
}

function Side({ route, who, failures, onSignOut }) {
	const [open, setOpen] = useState(false);
	const here = route.parts[0] ?? '';
	useEffect(() => setOpen(false), [route]);
	return (
		<header class={`side ${open ? 'open' : ''}`}>
			<div class="bar">
				<a class="brand" href="#/"><img src="/icon.svg" alt="" />eventstore</a>
				<button class="menu" aria-expanded={open} aria-controls="nav" onClick={() => setOpen(!open)}>Menu</button>
			</div>
			<nav class="nav" id="nav" aria-label="Pages">
				{pages.map((page) => (
					<a key={page.path} href={`#/${page.path}`} aria-current={here === page.path ? 'page' : undefined}>
						{page.label}
						{page.path === 'failures' && failures > 0
							&& <span class="count">{failures}<span class="hidden"> failures</span></span>}
					</a>
				))}
			</nav>
			<Account who={who} onSignOut={onSignOut} />
		</header>
	);
}

function Missing() {
	return <Page title="No such page"><Empty>The address names no page of the console.</Empty></Page>;
}

function pageOf(route) {
	const [first = '', name] = route.parts;
	const page = pages.find((one) => one.path === first);
	if (!page) return <Missing />;
	if (name === undefined) return <page.list query={route.query} />;
	return page.one ? <page.one key={name} name={name} rest={route.parts.slice(2)} query={route.query} /> : <Missing />;
}

function Console({ who, onSignOut }) {
	const route = useRoute();
	const main = useRef();
	const place = route.parts.slice(0, 2).join('/');
	const first = useRef(true);
	const [failures, setFailures] = useState(0);
	useEffect(() => startSamples((sample) => setFailures(Number(exact(sample.failures ?? 0)))), []);
	useEffect(() => {
		if (!first.current) {
			scrollTo(0, 0);
			main.current.focus({ preventScroll: true });
		}
		first.current = false;
	}, [place]);
	return (
		<div class="app">
			<button class="skip" onClick={() => main.current.focus()}>Skip to the content</button>
			<Side route={route} who={who} failures={failures} onSignOut={onSignOut} />
			<main ref={main} tabIndex="-1">{pageOf(route)}</main>
			<Toasts />
		</div>
	);
}

function App() {
	const [who, setWho] = useState(null);
	const [message, setMessage] = useState('');
	const [asked, setAsked] = useState(false);
	const signOut = useCallback(() => {
		setToken(null);
		setMessage('');
		setWho(null);
	}, []);
	const enter = useCallback(async () => {
		try {
			setWho(await get(paths.whoami()));
			setMessage('');
		} catch (error) {
			setWho(null);
			if (getToken()) setMessage(error.status === 401 ? 'The token is not valid, or has expired.' : error.message);
			if (error.status === 401) setToken(null);
		}
		setAsked(true);
	}, []);
	useEffect(() => {
		whenUnauthorized(() => {
			if (getToken()) setMessage('The token is not valid any more.');
			setWho(null);
		});
		enter();
	}, []);
	if (!asked) return <p class="boot">eventstore</p>;
	if (!who) return <SignIn message={message} onToken={(token) => { setToken(token); return enter(); }} />;
	return <Console who={who} onSignOut={signOut} />;
}

applyTheme(localStorage.getItem(themeKey) ?? 'system');
const app = document.getElementById('app');
app.replaceChildren();
render(<App />, app);
