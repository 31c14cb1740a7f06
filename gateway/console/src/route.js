// Addresses of pages.
import { useEffect, useState } from 'preact/hooks';

// The route is in the fragment, so that the gateway serves one page: #/streams/order-1?version=3
export function parseRoute(hash) {
	const [path, query = ''] = hash.replace(/^#\/?/, '').split('?');
	const parts = path.split('/').filter(Boolean).map((part) => {
		try {
			return decodeURIComponent(part);
		} catch {
			return part;
		}
	});
	return { parts, query: new URLSearchParams(query) };
}

export function useRoute() {
	const [route, setRoute] = useState(() => parseRoute(location.hash));
	useEffect(() => {
		const change = () => setRoute(parseRoute(location.hash));
		addEventListener('hashchange', change);
		return () => removeEventListener('hashchange', change);
	}, []);
	return route;
}

export function link(...parts) {
	return `#/${parts.map(encodeURIComponent).join('/')}`;
}

// Changes the query of the route without a new entry in the history; empty values are left out.
export function replaceQuery(changes) {
	const [path, query = ''] = location.hash.split('?');
	const next = new URLSearchParams(query);
	for (const [name, value] of Object.entries(changes)) {
		if (value === null || value === undefined || value === '') next.delete(name);
		else next.set(name, value);
	}
	const text = next.toString();
	history.replaceState(null, '', (path || '#/') + (text ? `?${text}` : ''));
	dispatchEvent(new HashChangeEvent('hashchange'));
}
