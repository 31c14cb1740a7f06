// The token is asked for once; it stays in this tab.
import { useEffect, useRef, useState } from 'preact/hooks';

export function SignIn({ message, onToken }) {
	const [busy, setBusy] = useState(false);
	const field = useRef();
	useEffect(() => {
		document.title = 'Sign in · eventstore';
		field.current.focus();
	}, []);
	const submit = async (event) => {
		event.preventDefault();
		const token = field.current.value.trim();
		if (!token) return;
		setBusy(true);
		await onToken(token);
		setBusy(false);
	};
	return (
		<main class="signin">
			<form class="card" onSubmit={submit}>
				<h1 class="brand"><img src="/icon.svg" alt="" />eventstore</h1>
				<p class="muted">What you see and may do here is what the token's role may do in the database.</p>
				<div>
					<label for="token">Token</label>
					<input id="token" ref={field} type="password" autocomplete="off" spellcheck={false} required
						aria-describedby={message ? 'token-problem' : 'token-about'} aria-invalid={message ? 'true' : undefined} />
				</div>
				{message
					? <p id="token-problem" class="note bad" role="alert">{message}</p>
					: <p id="token-about" class="muted">It is kept in this tab alone, until you close it or sign out.</p>}
				<div><button class="primary" disabled={busy}>Sign in</button></div>
			</form>
		</main>
	);
}
