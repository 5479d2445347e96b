// @ts-check
// One WebSocket of a stream. Every transport is a function like this one: it opens a connection, calls its events, and
// returns how to send and to close. A refused connection is closed without `onopen`.

/**
 * @typedef {{ send(frame: object): void, close(): void }} Connection `send` does nothing before `onopen`.
 * @typedef {{ onopen(): void, onmessage(text: string): void, onclose(code: number, reason: string, waitMs?: number): void }} Events
 */

/**
 * @param {any} WebSocket
 * @param {string} url
 * @param {string[]} query its members
 * @param {import('./relay-client.js').Transport} transport
 * @param {string} token
 * @param {Events} events
 * @returns {Connection}
 */
export function openSocket(WebSocket, url, query, transport, token, { onopen, onmessage, onclose }) {
  if (transport === 'query') query = [...query, `token=${token}`];
  const protocols = transport === 'subprotocol' ? ['relay.v1', `bearer.${token}`] : [];
  const socket = new WebSocket(`${url}?${query.join('&')}`, protocols);
  let auth = transport === 'first_message' && { type: 'auth', token };
  const send = (frame) => socket.readyState === 1 && socket.send(JSON.stringify(frame));
  socket.onopen = () => {
    onopen();
    if (auth) send(auth);
    auth = false; // no token is kept
  };
  socket.onmessage = ({ data }) => onmessage(data);
  socket.onerror = () => {}; // node's `ws` throws without a listener
  socket.onclose = ({ code, reason }) => onclose(code, reason);
  return { send, close: () => socket.close(1000) };
}
