// @ts-check
// The browser client of relay.v1: relay-client.d.ts documents its use and design

export { fetchToken, keepSession, logOut, TokenError } from './tokens.js';
export { createStream } from './stream.js';
