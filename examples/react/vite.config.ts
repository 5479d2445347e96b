import react from '@vitejs/plugin-react';
import { defineConfig } from 'vite';

// Log-in and tokens go to the relay through this server, so the page and its cookies have one origin. The prices come
// from the relay's stream listener itself, whose address is in the token's answer.
const relay = process.env.RELAY_URL ?? 'http://localhost:8000';
const proxy = { '/auth': relay, '/api': relay };

export default defineConfig({
  plugins: [react()],
  server: { host: 'localhost', port: 5173, strictPort: true, proxy },
  preview: { host: 'localhost', port: 5173, strictPort: true, proxy },
});
