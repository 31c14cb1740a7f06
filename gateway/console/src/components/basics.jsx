// Small pieces that every page uses.
import { useEffect, useRef, useState } from 'preact/hooks';
import { ago, time } from '../format.js';
import { replaceQuery } from '../route.js';

export function Page({ title, about, actions, children }) {
	useEffect(() => { document.title = `${title} · eventstore`; }, [title]);
	return (
		<>
			<div class="head">
				<div>
					<h1><bdi>{title}</bdi></h1>
					{about && <p class="muted">{about}</p>}
				</div>
				{actions && <div class="actions">{actions}</div>}
			</div>
			{children}
		</>
	);
}

export function Badge({ kind = '', children }) {
	return <span class={`badge ${kind}`}>{children}</span>;
}

export function Time({ value }) {
	return value ? <time dateTime={value} title={value}>{time(value)}</time> : <span class="muted">–</span>;
}

export function Ago({ value }) {
	return value ? <time dateTime={value} title={value}>{ago(value)}</time> : <span class="muted">–</span>;
}

// A bar with its value for screen readers. An SVG, because the policy forbids style attributes.
export function Progress({ percent, label }) {
	const value = Math.min(100, Math.max(0, Number(percent) || 0));
	return (
		<svg class="progress" role="progressbar" aria-label={label} aria-valuemin="0" aria-valuemax="100"
			aria-valuenow={Math.round(value)} viewBox="0 0 100 4" preserveAspectRatio="none">
			<rect class="track" width="100" height="4" />
			<rect class="bar" width={value} height="4" />
		</svg>
	);
}

export function Fault({ error, retry }) {
	if (!error) return null;
	return (
		<div class="note bad" role="alert">
			<p>{error.message}</p>
			{error.hint && <p class="muted">{error.hint}</p>}
			{error.sqlstate && <p class="muted">SQLSTATE {error.sqlstate}</p>}
			{retry && <button onClick={retry}>Try again</button>}
		</div>
	);
}

export function Empty({ children }) {
	return <p class="empty muted">{children}</p>;
}

// What a resource is at the moment: loading, refused, faulty, empty or its children.
export function Loaded({ resource, empty, isEmpty, children }) {
	if (resource.data === undefined && resource.loading) return <p class="empty muted" role="status">Loading…</p>;
	if (resource.error?.status === 403) return <Empty>Your role may not see this: {resource.error.message}.</Empty>;
	return (
		<>
			<Fault error={resource.error} retry={resource.reload} />
			{resource.data !== undefined && resource.data !== null
				&& (isEmpty?.(resource.data) ? <Empty>{empty}</Empty> : children(resource.data))}
		</>
	);
}

// A table whose rows become cards on a phone. The roles stay when CSS changes how rows are displayed.
export function Table({ label, columns, rows, rowKey, rowClass }) {
	return (
		<table class="table" role="table" aria-label={label}>
			<thead role="rowgroup">
				<tr role="row">
					{columns.map((column) => (
						<th key={column.key} role="columnheader" scope="col" class={column.align}>{column.label}</th>
					))}
				</tr>
			</thead>
			<tbody role="rowgroup">
				{rows.map((row) => (
					<tr key={rowKey(row)} role="row" class={rowClass?.(row)}>
						{columns.map((column) => (
							<td key={column.key} role="cell" data-label={column.text ?? column.label} class={column.align}>
								<div>{column.render ? column.render(row) : row[column.key]}</div>
							</td>
						))}
					</tr>
				))}
			</tbody>
		</table>
	);
}

// A field whose value is taken when it is left or Enter is pressed. It keeps what is being typed, as a page is drawn again
// whenever its figures come.
export function Typed({ value, onChosen, ...rest }) {
	const [typed, setTyped] = useState(null);
	return (
		<input {...rest} value={typed ?? value} onInput={(event) => setTyped(event.currentTarget.value)}
			onChange={(event) => {
				const text = event.currentTarget.value;
				setTyped(null);
				onChosen(text);
			}} />
	);
}

// Text fields that filter a list, in the query of the route. On a phone they are folded until one is in use.
export function Filters({ labels, values, placeholders = {} }) {
	const used = Object.values(values).some(Boolean);
	return (
		<details class="card" open={used || matchMedia('(min-width: 52rem)').matches}>
			<summary>Filters</summary>
			<form class="filters" aria-label="Filters" onSubmit={(event) => event.preventDefault()}>
				{Object.entries(labels).map(([name, label]) => (
					<div class="field" key={name}>
						<label for={`filter-${name}`}>{label}</label>
						<Typed id={`filter-${name}`} value={values[name]} placeholder={placeholders[name]} spellcheck={false} autocomplete="off"
							onChosen={(text) => replaceQuery({ [name]: text.trim() })} />
					</div>
				))}
				<button class="hidden" tabIndex="-1">Apply</button>
			</form>
		</details>
	);
}

export function valuesOf(labels, query) {
	return Object.fromEntries(Object.keys(labels).map((name) => [name, query.get(name) ?? '']));
}

export function Facts({ children }) {
	return <dl class="facts">{children}</dl>;
}

export function Fact({ label, children }) {
	return (
		<div>
			<dt>{label}</dt>
			<dd>{children ?? '–'}</dd>
		</div>
	);
}

// A question before something that cannot be undone. <dialog> keeps the focus and closes with Escape.
export function Confirm({ title, children, action, danger, onConfirm, onClose }) {
	const dialog = useRef();
	useEffect(() => { dialog.current.showModal(); }, []);
	return (
		<dialog ref={dialog} aria-labelledby="confirm-title" onClose={onClose}>
			<form method="dialog" onSubmit={(event) => {
				if (event.submitter?.value === 'yes') onConfirm();
			}}>
				<h2 id="confirm-title">{title}</h2>
				{children}
				<div class="actions">
					<button value="no" autofocus>Cancel</button>
					<button value="yes" class={danger ? 'danger' : 'primary'}>{action}</button>
				</div>
			</form>
		</dialog>
	);
}
