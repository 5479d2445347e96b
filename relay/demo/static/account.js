// @ts-check
/**
 * The account page: an ordinary call of an application through the API proxy, and what became of it on its way.
 *
 * The page reads /api/proxy/account. What the backend got for that is at /api/proxy/received, a route that only the
 * demo's backend has. It shows a token as a fingerprint, so no token comes back.
 */
import { holdsToken, lookAround } from './proof.js';
import { $, cellsOf, clock } from './text.js';

const WORDS = 'Calls go to this page’s own origin. The relay takes the access token from the cookie, and the backend gets ' +
  'it as a Bearer header. An injected script could make calls while it runs, and could carry no token away.';

/** @typedef {{ use: string, fingerprint: string, expires_at: number }} Token */
/** @typedef {{ at: number, request: string, bearer: Token | null, cookie: boolean, status: number, sent: string[],
 *   issued: Token | null }} Entry */

const cells = cellsOf('state', 'name', 'email', 'answers', 'bearer-badge', 'bearer', 'cookie', 'expiry', 'fields-badge', 'sent',
  'got', 'removed', 'refresh-badge', 'redeemed', 'issued');
const answers = { read: 0, withToken: 0 };
/** The access token that the backend got last. @type {Token | null} */
let token = null;
let renewedFor = ''; // the token after whose end the page has read by itself
let busy = false;

// Calls

/** Call the page's own origin. 401 is the end of the session: everything else is said and can be tried again. */
async function call(/** @type {string} */ path, method = 'GET') {
  const response = await fetch(path, { method, cache: 'no-store' });
  const text = await response.text();
  answers.read++;
  if (holdsToken(text)) answers.withToken++;
  if (response.status === 401) {
    location.replace('/?returnTo=/account');
    throw new Error('The session is over.');
  }
  const body = text ? JSON.parse(text) : {};
  if (!response.ok) throw new Error(body.message || `The server answered ${response.status}.`);
  return body;
}

/** Do one thing at a time, and say how it ended. */
async function doing(/** @type {() => Promise<string>} */ work) {
  if (busy) return;
  busy = true;
  for (const id of ['read', 'renew', 'logout']) $(id).setAttribute('aria-disabled', 'true');
  try {
    cells.state.show(await work());
  } catch (error) {
    cells.state.show(error instanceof TypeError || error instanceof SyntaxError ? 'The server does not answer. Try again.'
      : String(/** @type {Error} */ (error).message));
  }
  for (const id of ['read', 'renew', 'logout']) $(id).removeAttribute('aria-disabled');
  busy = false;
}

async function read() {
  const account = await call('/api/proxy/account');
  const { requests } = await call('/api/proxy/received');
  showAccount(account);
  showJourney(account, requests);
  document.body.dataset.view = 'account';
  return `Read at ${clock(Date.now())}.`;
}

// What is shown

/** The paths of all fields of a JSON value, as the settings write them: accounts.*.id. @returns {string[]} */
function fieldsOf(/** @type {any} */ value, path = '') {
  if (value === null || typeof value !== 'object') return path ? [path] : [];
  const found = Object.entries(value).flatMap(([name, child]) =>
    fieldsOf(child, [path, Array.isArray(value) ? '*' : name].filter(Boolean).join('.')));
  return [...new Set(found)];
}

function showAccount(/** @type {any} */ { name, email, accounts }) {
  cells.name.show(name);
  cells.email.show(email);
  const lines = accounts.map((/** @type {any} */ { id, currency, balance }) => {
    const line = document.createElement('tr');
    const head = document.createElement('th');
    head.scope = 'row';
    head.textContent = id;
    line.append(head, ...[currency, balance].map((text) => Object.assign(document.createElement('td'), { textContent: text })));
    return line;
  });
  $('balances').replaceChildren(...lines);
}

const named = (/** @type {Token | null} */ token) => (token ? `${token.use} token ${token.fingerprint}…` : 'none');

function showJourney(/** @type {any} */ account, /** @type {Entry[]} */ entries) {
  const last = entries.filter(({ request, status }) => request === 'GET /account' && status === 200).at(-1);
  if (!last) return; // the backend was started since
  token = last.bearer;
  cells.bearer.show(`Bearer, ${named(last.bearer)}`);
  cells.cookie.show(last.cookie ? 'came through!' : 'none came through');
  cells.expiry.show(token ? clock(token.expires_at * 1000) : '–');
  const got = fieldsOf(account);
  const removed = last.sent.filter((field) => !got.includes(field));
  cells.sent.show(last.sent.join(', '));
  cells.got.show(got.join(', '));
  cells.removed.show(removed.join(', ') || 'none');
  cells['fields-badge'].show(`${removed.length} of ${last.sent.length}`);
  const refreshes = entries.filter(({ request, issued }) => request === 'POST /auth/refresh' && issued);
  const refresh = refreshes.at(-1);
  cells['refresh-badge'].show(refresh ? `at ${clock(refresh.at)}` : 'not yet');
  cells['refresh-badge'].dress(`badge ${refresh ? 'good' : ''}`);
  cells.redeemed.show(refresh ? `${refresh.bearer?.fingerprint}… was redeemed` : '–');
  cells.issued.show(refresh ? `${refresh.issued?.fingerprint}…` : '–');
  $('journal').replaceChildren(...entries.reverse().map(journalLine));
}

function journalLine(/** @type {Entry} */ { at, request, bearer, cookie, status, issued }) {
  const line = document.createElement('li');
  const time = document.createElement('time');
  time.dateTime = new Date(at).toISOString();
  time.textContent = clock(at);
  const what = document.createElement('span');
  what.className = 'what';
  what.textContent = `${request} ${status}`;
  const from = document.createElement('span');
  from.className = 'from';
  from.textContent = [bearer ? `Bearer, ${named(bearer)}` : 'no Bearer', cookie && 'a cookie', issued && `→ ${issued.fingerprint}…`]
    .filter(Boolean).join(' ');
  line.append(time, what, from);
  return line;
}

/** Once a second: what a script can read now, and how long the access token is still good. */
function tick() {
  if (document.hidden) return;
  lookAround(WORDS);
  cells.answers.show(answers.withToken ? `${answers.withToken} of ${answers.read} hold a token!` : `${answers.read}, none holds a token`);
  if (!token) return;
  const left = Math.ceil(token.expires_at - Date.now() / 1000);
  cells['bearer-badge'].show(left > 0 ? `${left} s left` : 'over');
  cells['bearer-badge'].dress(`badge ${left > 0 ? 'good' : 'warn'}`);
  if (left < -1 && !busy && token.fingerprint !== renewedFor) {
    renewedFor = token.fingerprint; // once for each token: this computer's clock may be wrong
    doing(read);
  }
}

// Start

$('read').addEventListener('click', () => doing(read));
$('renew').addEventListener('click', () => doing(async () => {
  await call('/api/auth/refresh', 'POST');
  await read();
  return `Renewed at ${clock(Date.now())}.`;
}));
$('logout').addEventListener('click', () => doing(async () => {
  await call('/api/auth/logout', 'POST');
  location.replace('/');
  return 'Logged out.';
}));
// a page from the back-forward cache shows an account although the session may be over
addEventListener('pageshow', ({ persisted }) => persisted && location.reload());

setInterval(tick, 1000);
doing(async () => {
  const { user } = await call('/api/auth/me');
  $('user').textContent = user.name;
  return read();
}).then(tick);
