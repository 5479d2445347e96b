// @ts-check
// What an injected script could read on this page: no access token.

import { cellsOf, clock } from './text.js';

const cells = cellsOf('proof-badge', 'proof-cookie', 'proof-local', 'proof-session', 'proof-words');
const TOKEN = /eyJ[\w-]+\.[\w-]+/; // the beginning of any JWT

/** Whether a text holds something that looks like a token. */
export const holdsToken = (/** @type {string} */ text) => TOKEN.test(text);

/** Read all that a script can read, and say what it is. `words` are for a page that is as it must be. */
export function lookAround(/** @type {string} */ words) {
  const places = {
    'proof-cookie': document.cookie ? document.cookie.split('; ') : [],
    'proof-local': Object.entries(localStorage).map((pair) => pair.join('=')),
    'proof-session': Object.entries(sessionStorage).map((pair) => pair.join('=')),
  };
  const found = Object.values(places).flat();
  const leaked = found.some(holdsToken);
  for (const [id, entries] of Object.entries(places))
    cells[id].show(entries.length ? entries.map((text) => text.split('=')[0]).join(', ') : 'empty');
  cells['proof-badge'].show(leaked ? 'a token is readable!' : `not readable · checked at ${clock(Date.now())}`);
  cells['proof-badge'].dress(`badge ${leaked ? 'bad' : 'good'}`);
  cells['proof-words'].show(leaked
    ? 'A value here looks like a token, and every script on this page can steal it.'
    : `${found.length ? 'None of these is a token. ' : ''}${words}`);
}
