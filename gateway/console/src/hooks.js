// What pages share: data that is fetched again at an interval, actions with their outcome.
import { useCallback, useEffect, useRef, useState } from 'preact/hooks';
import { request } from './api.js';
import { toast } from './components/Toasts.jsx';

// Fetches a path, again every so many milliseconds while the tab is visible. A path of null fetches nothing.
export function useResource(path, every) {
	const [state, setState] = useState({ loading: true });
	const [turn, setTurn] = useState(0);
	const shown = useRef();
	useEffect(() => {
		if (!path) {
			setState({ loading: false });
			return undefined;
		}
		const abort = new AbortController();
		let timer;
		if (shown.current !== path) setState({ loading: true });
		shown.current = path;
		const load = async () => {
			if (!document.hidden || timer === undefined) {
				try {
					const { body, more } = await request('GET', path, { signal: abort.signal });
					setState({ data: body, more, loading: false });
				} catch (error) {
					if (abort.signal.aborted) return;
					setState((old) => ({ data: error.status === 0 || error.status >= 500 ? old.data : undefined, error, loading: false }));
				}
			}
			if (every && !abort.signal.aborted) timer = setTimeout(load, every);
		};
		load();
		return () => {
			abort.abort();
			clearTimeout(timer);
		};
	}, [path, every, turn]);
	const reload = useCallback(() => setTurn((n) => n + 1), []);
	return { ...state, reload };
}

// Runs an action once at a time; its result is said in a toast.
export function useAction() {
	const [busy, setBusy] = useState(false);
	const run = useCallback(async (work, success) => {
		setBusy(true);
		try {
			const result = await work();
			const text = typeof success === 'function' ? success(result) : success;
			if (text) toast(text);
			return result;
		} catch (error) {
			toast(error.message + (error.hint ? ` ${error.hint}` : ''), 'bad');
			return undefined;
		} finally {
			setBusy(false);
		}
	}, []);
	return [run, busy];
}

export function useDebounced(value, milliseconds = 250) {
	const [late, setLate] = useState(value);
	useEffect(() => {
		const timer = setTimeout(() => setLate(value), milliseconds);
		return () => clearTimeout(timer);
	}, [value, milliseconds]);
	return late;
}
