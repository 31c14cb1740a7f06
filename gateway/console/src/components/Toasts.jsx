// Outcomes of actions, in a corner; screen readers hear them.
import { useEffect, useState } from 'preact/hooks';

let add = () => {};
let next = 0;

export function toast(text, kind = 'good') {
	add({ id: ++next, text, kind });
}

export function Toasts() {
	const [list, setList] = useState([]);
	const drop = (id) => setList((old) => old.filter((one) => one.id !== id));
	useEffect(() => {
		add = (one) => {
			setList((old) => [...old.slice(-3), one]);
			setTimeout(() => drop(one.id), one.kind === 'bad' ? 15_000 : 5_000);
		};
		return () => { add = () => {}; };
	}, []);
	return (
		<div class="toasts">
			{['good', 'bad'].map((kind) => (
				<div key={kind} role={kind === 'bad' ? 'alert' : 'status'}>
					{list.filter((one) => one.kind === kind).map((one) => (
						<div key={one.id} class={`toast ${kind}`}>
							<span>{one.text}</span>
							<button class="plain" aria-label="Dismiss" onClick={() => drop(one.id)}>×</button>
						</div>
					))}
				</div>
			))}
		</div>
	);
}
