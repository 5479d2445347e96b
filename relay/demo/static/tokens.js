// @ts-check
// The scoped token of this page.

import { $, Cell, cellsOf, clock } from './text.js';

const cells = cellsOf('token-used', 'token-left');

/** @type {{ text: string, endpoint: string, claims: any, usedAt?: number }} */
const token = { text: '', endpoint: '', claims: null };
/** @type {Cell | undefined} */
let expiry;

const CLAIMS = {
  aud: 'valid only at', channels: 'may read', scope: 'may do', exp: 'valid until', sub: 'user',
  origin: 'valid only from', iss: 'issued by', jti: 'token id', sid: 'session, hashed',
};

function decodePart(/** @type {string} */ part) {
  const bytes = Uint8Array.from(atob(part.replace(/-/g, '+').replace(/_/g, '/')), (c) => c.charCodeAt(0));
  return JSON.parse(new TextDecoder().decode(bytes));
}

export function holdToken(/** @type {import('/client/relay-client.js').Grant} */ { wsToken, endpoint }) {
  Object.assign(token, { text: wsToken, endpoint, claims: decodePart(wsToken.split('.')[1]), usedAt: undefined });
  if (!$('user').textContent) $('user').textContent = token.claims.sub;
  const list = Object.entries(CLAIMS)
    .filter(([name]) => name in token.claims)
    .map(([name, meaning]) => claimLine(name, meaning, token.claims[name]));
  $('claims').replaceChildren(...list);
}

export function tokenUsed(/** @type {number | undefined} */ serverNow) {
  token.usedAt = serverNow;
}

function claimLine(/** @type {string} */ name, /** @type {string} */ meaning, /** @type {any} */ value) {
  const line = document.createElement('div');
  const [term, code, detail] = ['dt', 'code', 'dd'].map((tag) => document.createElement(tag));
  code.textContent = name;
  term.append(code, meaning);
  detail.textContent = detail.title = name === 'exp' ? clock(value * 1000) : [value].flat().join(', ');
  detail.dataset.claim = name;
  if (name === 'exp') expiry = new Cell(detail);
  line.append(term, detail);
  return line;
}

export function paintToken(/** @type {number} */ serverNow) {
  const { claims, usedAt } = token;
  if (!claims) return;
  const left = claims.exp * 1000 - (Number.isNaN(serverNow) ? Date.now() : serverNow);
  const seconds = Math.max(0, Math.ceil(left / 1000));
  expiry?.show(`${clock(claims.exp * 1000)} · ${seconds ? `${seconds} s left` : 'expired'}`);
  cells['token-used'].show(usedAt ? `used once, ${clock(usedAt)}` : 'not used yet');
  cells['token-used'].dress(`badge ${usedAt ? 'good' : ''}`);
  cells['token-left'].show(seconds ? `expires in ${seconds} s` : 'expired');
  cells['token-left'].dress(`badge ${seconds ? '' : 'warn'}`);
  $('token-life').style.transform = `scaleX(${Math.min(1, Math.max(0, left / 1000 / (claims.exp - claims.iat)))})`;
  /** @type {HTMLButtonElement} */ ($('replay')).disabled = !usedAt || replaying;
}

let replaying = false;

/** Try the used token in the first frame, because a browser's script sees the reason of a refusal only there. */
function replay(/** @type {() => void} */ ended) {
  const socket = new WebSocket(token.endpoint);
  let answer = '';
  replaying = true;
  sayReplay('Trying…', '');
  const giveUp = setTimeout(() => socket.close(), 8000);
  socket.onopen = () => socket.send(JSON.stringify({ type: 'auth', token: token.text }));
  socket.onmessage = ({ data }) => {
    answer = JSON.parse(data).type;
    if (answer === 'welcome') socket.close();
  };
  socket.onclose = ({ code, reason }) => {
    clearTimeout(giveUp);
    replaying = false;
    if (answer === 'welcome') sayReplay('Accepted!', ' A used token has opened a connection. This must not happen.', true);
    else if (code === 3000) sayReplay(`Refused with close code ${code}, ${reason || 'no reason'}.`, ' The price stream was not affected.');
    else sayReplay(`Closed with code ${code} ${reason}.`.replace(' .', '.'), ' The server has not checked the token.', true);
    setTimeout(ended, 300); // by then the refusal is in the audit log
  };
}

function sayReplay(/** @type {string} */ strong, /** @type {string} */ rest, bad = false) {
  const lead = document.createElement('strong');
  lead.textContent = strong;
  $('replay-result').replaceChildren(lead, rest);
  $('replay-result').className = bad ? 'bad' : '';
}

/** Let the button try the used token; `ended` is called when the attempt is in the audit log. */
export function offerReplay(/** @type {() => void} */ ended) {
  $('replay').addEventListener('click', () => replay(ended));
}
