// Numbers, times and durations as people read them. Integers are grouped as text, so that none is rounded.
import { exact } from './json.js';

const groups = /\B(?=(\d{3})+$)/g;

export function integer(value) {
	if (value === null || value === undefined) return '–';
	const text = exact(value);
	const [whole, fraction] = text.split('.');
	if (!/^-?\d+$/.test(whole)) return text;
	return whole.replace(groups, '\u202f') + (fraction ? `.${fraction}` : '');
}

export function rate(value) {
	if (value === null || value === undefined || Number.isNaN(value)) return '–';
	if (value === 0) return '0';
	if (value < 10) return value.toFixed(1);
	return integer(Math.round(value));
}

export function seconds(value) {
	if (value === null || value === undefined) return '–';
	const s = Number(exact(value));
	if (s === 0) return '0\u00a0s';
	if (s < 1) return `${Math.round(s * 1000)}\u00a0ms`;
	if (s < 60) return `${s < 10 ? s.toFixed(1) : Math.round(s)}\u00a0s`;
	const [long, short, size] = s < 3600 ? ['min', 's', 60] : s < 86400 ? ['h', 'min', 3600] : ['d', 'h', 86400];
	const rest = Math.floor((s % size) / (size === 60 ? 1 : size === 3600 ? 60 : 3600));
	return `${Math.floor(s / size)}\u00a0${long}${rest ? ` ${rest}\u00a0${short}` : ''}`;
}

export function time(value) {
	if (!value) return '–';
	const date = new Date(value);
	if (Number.isNaN(date.getTime())) return String(value);
	const pad = (n, width = 2) => String(n).padStart(width, '0');
	return `${date.getFullYear()}-${pad(date.getMonth() + 1)}-${pad(date.getDate())} `
		+ `${pad(date.getHours())}:${pad(date.getMinutes())}:${pad(date.getSeconds())}`;
}

export function ago(value, now = Date.now()) {
	if (!value) return '–';
	const s = (now - new Date(value).getTime()) / 1000;
	if (Number.isNaN(s)) return String(value);
	return s < 1.5 ? 'just now' : `${seconds(s < 60 ? Math.round(s) : s)} ago`;
}
