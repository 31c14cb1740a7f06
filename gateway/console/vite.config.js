// Static files for the gateway: hashed names in assets/, nothing inline (the Content-Security-Policy forbids it),
// and no file that is fetched from elsewhere.
import { defineConfig } from 'vite';

export default defineConfig({
	logLevel: 'warn',
	esbuild: { jsx: 'automatic', jsxImportSource: 'preact' },
	build: {
		target: 'es2022',
		assetsInlineLimit: 0,
		modulePreload: { polyfill: false },
		chunkSizeWarningLimit: 200,
	},
	server: {
		proxy: { '/v1': process.env.GATEWAY ?? 'http://127.0.0.1:8080' },
	},
});
