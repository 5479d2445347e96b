// What a page may load and run. An injected script would run as the user: it can't read a cookie, but it can make calls.

const DEVELOPMENT = process.env.NODE_ENV === 'development';

/** Origins besides the page's own to which it connects. In production nginx puts the stream at the page's own origin. */
const STREAM = process.env.STREAM_ORIGINS ?? (DEVELOPMENT ? 'ws://localhost:8001 http://localhost:8001' : '');

/** Return the policy of one answer. Only scripts with this nonce run, and scripts that those load. */
export function contentSecurityPolicy(nonce: string): string {
  return [
    "default-src 'self'",
    // React's development build uses eval, and Next.js's error display has styles without a nonce
    `script-src 'nonce-${nonce}' 'strict-dynamic'${DEVELOPMENT ? " 'unsafe-eval'" : ''}`,
    `style-src 'self' ${DEVELOPMENT ? "'unsafe-inline'" : `'nonce-${nonce}'`}`,
    `connect-src 'self' ${STREAM}`.trim(),
    "object-src 'none'",
    "base-uri 'none'",
    "form-action 'self'",
    "frame-ancestors 'none'",
  ].join('; ');
}
