import type { NextConfig } from 'next';

const relay = process.env.RELAY_URL ?? 'http://localhost:8000';

const config: NextConfig = {
  poweredByHeader: false,
  agentRules: false, // `next dev` writes no file of its own into this folder

  async redirects() {
    return [{ source: '/', destination: '/dashboard', permanent: false }];
  },

  async headers() {
    return [
      {
        source: '/:path*',
        headers: [
          // for answers that are no page; proxy.ts replaces it on pages
          { key: 'Content-Security-Policy', value: "base-uri 'none'; object-src 'none'; frame-ancestors 'none'" },
          { key: 'Referrer-Policy', value: 'same-origin' },
          { key: 'X-Content-Type-Options', value: 'nosniff' },
        ],
      },
    ];
  },

  // Only `next dev` forwards these paths to the relay. In production nginx does, and no such request comes here.
  async rewrites() {
    if (process.env.NODE_ENV !== 'development') return [];
    return ['/api/auth/:path*', '/api/proxy/:path*', '/auth/:path*'].map((source) => ({
      source,
      destination: `${relay}${source}`,
    }));
  },
};

export default config;
