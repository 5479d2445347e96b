// @ts-check
// One event stream, where WebSockets are blocked. It is a `fetch`, which keeps the token out of the URL and can read a
// refusal: an EventSource does neither

// The relay's refusals as close codes; others are waited out
const CODES = { 400: 1008, 401: 3000, 403: 3003, 404: 3003, 409: 4503 };

/**
 * @param {string} url
 * @param {{ channels: string[], interval_ms: number, since: object }} subscriptions fixed for the connection's life
 * @param {unknown} compress whether it is asked for
 * @param {string} token
 * @param {import('./socket.js').Events} events
 * @returns {import('./socket.js').Connection}
 */
export function openEvents(url, subscriptions, compress, token, { onopen, onmessage, onclose }) {
  const controller = new AbortController();
  const headers = { accept: 'text/event-stream', authorization: `Bearer ${token}` };
  if (subscriptions.channels.length) headers['relay-subscribe'] = JSON.stringify(subscriptions);

  async function read() {
    const { signal } = controller;
    const asked = compress ? '?compress=1' : '';
    const response = await fetch(url.replace(/^ws/, 'http') + asked, { headers, cache: 'no-store', signal });
    const field = (name) => /** @type {any} */ (response.headers.get(name));
    if (!/event-stream/.test(field('content-type'))) {
      const { code, retryable } = await response.json();
      // Any other form is a proxy's
      return typeof retryable === 'boolean' ? [CODES[response.status], code, parseFloat(field('retry-after')) * 1000] : [];
    }
    onopen();
    const decoder = new TextDecoder();
    const reader = /** @type {ReadableStream} */ (response.body).getReader();
    for (let rest = ''; ; ) {
      const { done, value } = await reader.read();
      const events = (rest + decoder.decode(value, { stream: !done })).split('\n\n');
      rest = /** @type {string} */ (events.pop());
      for (const event of events) {
        const text = /^data: (.*)/m.exec(event)?.[1];
        const { type, code, reason } = text?.startsWith('{"type":"close"') ? JSON.parse(text) : {};
        if (type) return [code, reason];
        if (text) onmessage(text);
      }
      if (done) return [];
    }
  }

  read()
    .catch(() => [])
    .then(([code = 1006, reason = '', wait]) => onclose(code, reason, wait));
  return { send() {}, close: () => controller.abort() };
}
