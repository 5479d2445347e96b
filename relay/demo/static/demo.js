// @ts-check
/**
 * The demo page: live prices over a scoped token, and what a script on this page can and can't read.
 *
 * Frames only change the rows in memory. The page is written once per animation frame, each cell only if its text
 * changed, and nothing is read from the layout. A hidden tab gets no animation frames, so it writes nothing.
 */
import { createStream, fetchToken } from '/client/relay-client.js';

import { SAMPLES, drawChart, watchChart } from './chart.js';
import { Freshness } from './freshness.js';
import { lookAround } from './proof.js';
import { $, Cell, cellsOf, clock, decimal, duration, percent, places, trend } from './text.js';
import { holdToken, offerReplay, paintToken, tokenUsed } from './tokens.js';

const PATTERN = 'prices.>';
const SLOW_MS = 250; // update interval of ages and countdowns: a person reads no faster
const FLASH_MS = 220;
const SAMPLE_MS = 250;
const POLL_MS = 2000;
const WORDS = 'The session is in an HttpOnly cookie: the browser sends it, and no script can read it. An injected script could ' +
  'steal the token above, which is used and short-lived. While it runs it could also request new ones; each opens one WebSocket.';
// one page and no other: an address that anybody may choose would lead users away after their log-in
const RETURN_TO = ['/account'].find((page) => page === new URLSearchParams(location.search).get('returnTo'));
const TOGETHER_MS = 2000; // the longest wait for the first price of all symbols

const cells = cellsOf('m-rate', 'm-rtt', 'm-age', 'conn-state', 'conn-detail', 'chart-symbol', 'chart-mid', 'chart-change',
  'audit-note');
const fresh = new Freshness();

// The table

/** @type {Map<string, Row>} */
const rows = new Map();
/** @type {Set<Row>} */
const dirty = new Set();
/** @type {Set<Row>} */
const flashing = new Set();
/** @type {Row | undefined} */
let selected;
let expected = 0; // symbols that the market has; 0: unknown, or no more to wait for

/** One symbol: its newest frame, its history, and its cells. */
class Row {
  constructor(/** @type {string} */ symbol) {
    this.symbol = symbol;
    /** @type {import('/client/relay-client.js').DataFrame | undefined} */
    this.frame = undefined;
    this.stale = false; // as the stream says
    this.heard = 0; // when the frame came, of performance.now()
    this.age = NaN; // of the price, on the server's clock
    this.look = ''; // as `fresh` judges
    this.midText = '';
    this.digits = 0;
    this.sizeDigits = 0;
    this.first = 0; // the mid price when the page was opened
    this.bid = this.ask = 0; // as painted
    this.until = 0; // when the flash ends
    this.times = new Float64Array(SAMPLES); // performance.now() of each sample, a ring
    this.mids = new Float64Array(SAMPLES);
    this.count = 0;
    const line = document.createElement('tr');
    line.dataset.testid = 'price-row';
    line.dataset.symbol = symbol;
    const head = document.createElement('th');
    head.scope = 'row';
    this.button = document.createElement('button');
    this.button.type = 'button';
    this.button.textContent = symbol;
    this.button.setAttribute('aria-pressed', 'false');
    head.append(this.button);
    line.append(head);
    const cell = (/** @type {string} */ look) => {
      const element = document.createElement('td');
      element.className = look;
      line.append(element);
      return new Cell(element);
    };
    this.cells = {
      bidSize: cell('size'), bid: cell('bid'), ask: cell('ask'), askSize: cell('size'),
      spread: cell('spread'), change: cell('change'), age: cell('age'),
    };
    line.addEventListener('click', () => select(this));
    this.line = new Cell(line);
  }

  /** Keep a frame; the next paint shows it. */
  take(/** @type {import('/client/relay-client.js').DataFrame} */ frame) {
    this.frame = frame;
    dirty.add(this);
    const now = (this.heard = performance.now());
    if (now - this.times[(this.count - 1) % SAMPLES] < SAMPLE_MS) return;
    const mid = (Number(frame.data.bid) + Number(frame.data.ask)) / 2;
    this.first ||= mid;
    this.times[this.count % SAMPLES] = now;
    this.mids[this.count % SAMPLES] = mid;
    this.count++;
  }

  paint(/** @type {number} */ now) {
    if (!this.frame) return;
    const { bid, ask, bid_size, ask_size } = this.frame.data;
    const { cells } = this;
    this.digits = Math.max(this.digits, places(bid), places(ask));
    this.sizeDigits = Math.min(3, Math.max(this.sizeDigits, places(bid_size), places(ask_size)));
    const [newBid, newAsk] = [Number(bid), Number(ask)];
    this.flash(cells.bid, 'bid', newBid - this.bid, this.bid, now);
    this.flash(cells.ask, 'ask', newAsk - this.ask, this.ask, now);
    this.bid = newBid;
    this.ask = newAsk;
    this.mid = (newBid + newAsk) / 2;
    this.midText = decimal(this.mid.toFixed(this.digits), this.digits);
    this.change = this.mid / this.first - 1;
    cells.bid.show(decimal(bid, this.digits));
    cells.ask.show(decimal(ask, this.digits));
    cells.bidSize.show(decimal(bid_size, this.sizeDigits));
    cells.askSize.show(decimal(ask_size, this.sizeDigits));
    cells.spread.show((newAsk - newBid).toFixed(this.digits));
    cells.change.show(percent(this.change));
    cells.change.dress(`change ${trend(this.change)}`);
  }

  flash(/** @type {Cell} */ cell, /** @type {string} */ side, /** @type {number} */ step, /** @type {number} */ before,
    /** @type {number} */ now) {
    if (!step || !before) return;
    cell.dress(`${side} ${step > 0 ? 'up' : 'down'}`);
    this.until = now + FLASH_MS;
    flashing.add(this);
  }

  unflash() {
    this.cells.bid.dress('bid');
    this.cells.ask.dress('ask');
  }

  /** Show the price's age on the server's clock, and mark old rows. */
  judge(/** @type {number} */ serverNow) {
    this.age = this.frame ? serverNow - this.frame.ts : NaN;
    this.look = fresh.price(this, this.age);
    this.cells.age.show(Number.isNaN(this.age) ? '–' : duration(this.age));
    this.line.dress(this === selected ? `${this.look} selected` : this.look);
    if (this.look === 'stale') this.unflash();
  }
}

function rowOf(/** @type {string} */ symbol) {
  let row = rows.get(symbol);
  if (!row) {
    row = new Row(symbol);
    rows.set(symbol, row);
    if (rows.size >= expected) insertRows();
    else if (rows.size === 1) setTimeout(insertRows, TOGETHER_MS);
    if (!selected || (symbol.startsWith('BTC') && !chosen)) select(row, false);
  }
  return row;
}

/** Insert the rows that are not in the table, all together: rows that came one by one would move each other. */
function insertRows() {
  expected = 0;
  $('rows-empty').hidden = true;
  const sorted = [...rows.values()].sort((a, b) => (a.symbol < b.symbol ? -1 : 1)).map((row) => row.line.element);
  sorted.forEach((line, at) => line.isConnected || $('rows').insertBefore(line, $('rows').children[at] ?? null));
}

const quote = new Cell($('quote'));
let chosen = false; // whether the user has selected a symbol; until then it is BTC

function select(/** @type {Row} */ row, byUser = true) {
  chosen ||= byUser;
  selected?.button.setAttribute('aria-pressed', 'false');
  selected = row;
  row.button.setAttribute('aria-pressed', 'true');
  cells['chart-symbol'].show(row.symbol);
  repaint();
}

/** The headline and the chart, always together: one price, one age. */
function paintSelected(/** @type {number} */ now) {
  if (!selected?.midText) return;
  const { midText, change = 0, look } = selected;
  cells['chart-mid'].show(midText);
  cells['chart-change'].show(percent(change));
  cells['chart-change'].dress(`change ${trend(change)}`);
  quote.dress(`quote ${look}`);
  drawChart(selected, now);
}

// Painting: once per animation frame, never in a hidden tab

let frame = 0;
let slowAt = 0;
let received = 0;
let rates = '–';
let rate = { at: performance.now(), count: 0 };

function wake() {
  if (!frame && !document.hidden) frame = requestAnimationFrame(paint);
}

/** Paint everything in the next frame. */
function repaint() {
  slowAt = 0;
  wake();
}

function paint(/** @type {number} */ now) {
  frame = 0;
  const serverNow = stream?.serverNow() ?? NaN;
  const isSlow = now >= slowAt;
  const hasMoved = selected && dirty.has(selected);
  fresh.look(performance.now());
  for (const row of dirty) row.paint(now);
  for (const row of isSlow ? rows.values() : dirty) row.judge(serverNow);
  dirty.clear();
  if (hasMoved || isSlow) paintSelected(now);
  for (const row of flashing) {
    if (row.until > now) continue;
    row.unflash();
    flashing.delete(row);
  }
  if (!isSlow) return;
  slowAt = now + SLOW_MS - 20;
  paintSlow(now, serverNow);
}

function paintSlow(/** @type {number} */ now, /** @type {number} */ serverNow) {
  const oldest = Math.max(...[...rows.values()].map((row) => row.age));
  cells['m-age'].show(oldest >= 0 ? duration(oldest) : '–');
  cells['m-age'].dress(fresh.price({ stale: false, heard: Infinity }, oldest));
  if (now - rate.at >= 1000) {
    rates = String(Math.round((received - rate.count) / ((now - rate.at) / 1000)));
    rate = { at: now, count: received };
    lookAround(WORDS);
  }
  cells['m-rate'].show(fresh.connected ? rates : '–');
  if (!fresh.connected) cells['m-rtt'].show('–');
  paintConnection(now);
  paintToken(serverNow);
  paintAuditAge();
}

// The connection

/** @type {import('/client/relay-client.js').Stream | undefined} */
let stream;
let everOpen = false;

const MEANING = {
  4501: 'The session has ended, by a logout or by an operator.',
  4503: 'This session has too many connections.',
  4504: 'A newer connection of this session has replaced this one.',
  3003: 'This page may not open this stream.',
};

function start() {
  stream?.close();
  everOpen = false;
  const issue = fetchToken({ endpoint: 'prices', channels: [PATTERN] });
  stream = createStream({
    getToken: async (attempt) => {
      const grant = await issue(attempt);
      holdToken(grant);
      return grant;
    },
  });
  stream.on('state', linkChanged);
  stream.on('silence', (silent) => {
    fresh.silent = silent;
    repaint();
  });
  stream.on('refreshed', () => tokenUsed(stream?.serverNow()));
  stream.on('welcome', () => {
    everOpen = true;
    tokenUsed(stream?.serverNow());
    show('desk');
    measure();
  });
  const onFrame = (/** @type {import('/client/relay-client.js').DataFrame} */ data) => {
    received++;
    (rows.get(data.data.symbol) ?? rowOf(data.data.symbol)).take(data);
    wake();
  };
  stream.subscribe(PATTERN, {
    onSnapshot: onFrame,
    onUpdate: onFrame,
    onStatus: ({ channel, state }) => {
      const row = rows.get(channel.slice(channel.indexOf('.') + 1));
      if (row) row.stale = state === 'stale';
      repaint();
    },
    onError: ({ code, message }) => refuse(`The subscription was refused: ${message || code}`),
  });
}

function linkChanged(/** @type {import('/client/relay-client.js').StateChange} */ change) {
  fresh.link = { ...change, since: performance.now() };
  fresh.silent = false;
  if (change.state === 'waiting' && /boot|login/.test(document.body.dataset.view ?? '')) show('desk');
  if (change.state === 'stopped') {
    if (change.status === 401 && !everOpen) show('login');
    else refuse(change.code ? `The server closed this socket with code ${change.code} (${change.reason}).`
      : `The token issuer answered ${change.status} (${change.reason}).`, MEANING[/** @type {4501} */ (change.code)]);
  }
  repaint();
}

function paintConnection(/** @type {number} */ now) {
  if (!fresh.link) return;
  const { state, code, status, reason, retryInMs = 0, since } = fresh.link;
  const left = Math.max(0, Math.ceil((retryInMs - (now - since)) / 1000));
  const why = [code ?? status, reason].filter(Boolean).join(' ');
  const [tone, word, detail] = {
    connecting: ['idle', 'connecting', ''],
    open: fresh.connected ? ['good', 'live', ''] : ['warn', 'silent', 'prices are old'],
    waiting: ['warn', 'reconnecting', `in ${left} s${why ? ` (${why})` : ''}`],
    stopped: ['bad', `closed ${code ?? status ?? ''}`, reason ?? ''],
    closed: ['idle', 'closed', ''],
  }[state];
  $('conn').dataset.tone = tone;
  cells['conn-state'].show(word);
  cells['conn-detail'].show(detail);
}

async function measure() {
  const ms = (await stream?.ping()) ?? NaN;
  cells['m-rtt'].show(Number.isNaN(ms) || !fresh.connected ? '–' : ms < 10 ? ms.toFixed(1) : ms.toFixed(0));
}

// Logging in and out

function show(/** @type {'login' | 'desk' | 'ended'} */ view) {
  document.body.dataset.view = view;
  $('ended').hidden = view !== 'ended';
  if (view === 'login' && matchMedia('(hover: hover)').matches) $('email').focus();
  poll();
}

function refuse(/** @type {string} */ what, meaning = '') {
  $('ended-title').textContent = what;
  $('ended-text').textContent = `${meaning} The prices on this page no longer change and are marked stale.`.trim();
  show('ended');
}

/** POST JSON to this page's origin. `status` is 0 if the server did not answer. */
async function post(/** @type {string} */ path, /** @type {object | undefined} */ body) {
  try {
    const headers = body && { 'content-type': 'application/json' };
    const response = await fetch(path, { method: 'POST', headers, body: body && JSON.stringify(body) });
    return { status: response.status, ok: response.ok, body: await response.json().catch(() => ({})) };
  } catch {
    return { status: 0, ok: false, body: { message: 'The server does not answer. Try again.' } };
  }
}

$('login').addEventListener('submit', async (event) => {
  event.preventDefault();
  const [email, password, button] = ['email', 'password', 'login-submit'].map((id) => /** @type {HTMLInputElement} */ ($(id)));
  const complain = (/** @type {string} */ text) => {
    $('login-error').textContent = text;
    for (const field of [email, password]) field.setAttribute('aria-invalid', String(Boolean(text)));
  };
  complain('');
  if (!email.value || !password.value) return complain('Enter an e-mail address and a password.');
  button.disabled = true;
  const answer = await post('/api/auth/login', { email: email.value, password: password.value });
  button.disabled = false;
  password.value = '';
  if (!answer.ok || !answer.body.user) {
    complain(answer.body.message || `The server answered ${answer.status}.`);
    return password.focus();
  }
  if (RETURN_TO) return location.assign(RETURN_TO);
  $('user').textContent = answer.body.user?.name ?? email.value;
  start(); // the desk is shown with its prices
});

$('logout').addEventListener('click', async () => {
  const button = /** @type {HTMLButtonElement} */ ($('logout'));
  button.disabled = true;
  const answer = await post('/api/auth/logout', undefined);
  button.disabled = false;
  // a proxy's page has 200, and the relay's log-out 204: nobody is logged out by the former
  const done = answer.status === 204;
  const why = answer.body.message || `the server answered ${answer.status}`;
  $('logout-error').textContent = done ? '' : `You are still logged in: ${why}`;
  const left = stream;
  setTimeout(() => {
    if (!done || left?.state === 'stopped') return;
    left?.close();
    refuse('You are logged out. The server did not close the WebSocket within 3 seconds, so this page closed it.');
  }, 3000);
});

$('again').addEventListener('click', () => show('login'));

// The audit log

let polling = 0;
let auditShown = '';
let auditRead = { at: -Infinity, wall: 0 };

async function poll() {
  clearTimeout(polling);
  if (document.hidden || !/desk|ended/.test(document.body.dataset.view ?? '')) return;
  polling = setTimeout(poll, POLL_MS);
  try {
    const response = await fetch('/demo/audit?last=20', { cache: 'no-store' });
    if (!response.ok) throw Error(String(response.status));
    const text = await response.text();
    auditRead = { at: performance.now(), wall: Date.now() };
    if (text === auditShown) return;
    auditShown = text;
    $('audit').replaceChildren(...JSON.parse(text).events.reverse().map(auditLine));
  } catch {
    auditRead.at = -Infinity; // the next poll tries again
  }
  repaint();
}

function paintAuditAge() {
  const isOld = auditRead.wall > 0 && fresh.isOld(auditRead.at, POLL_MS);
  $('audit-panel').dataset.stale = String(isOld);
  cells['audit-note'].show(isOld ? `as of ${clock(auditRead.wall)}` : 'newest first · only the demo shows it');
}

function auditLine(/** @type {any} */ { '@timestamp': at, event, user, source, client }) {
  const line = document.createElement('li');
  line.className = event.outcome;
  const span = (/** @type {string} */ look, /** @type {string} */ text) => {
    const element = document.createElement('span');
    element.className = look;
    element.textContent = text;
    return element;
  };
  const time = document.createElement('time');
  time.dateTime = at;
  time.textContent = clock(Date.parse(at));
  const what = span('what', '');
  what.append(span('action', event.action), span('why', event.reason ? ` ${event.reason}` : ''));
  what.title = `${event.action} ${event.outcome} ${event.reason ?? ''}`;
  const from = span('from', '');
  const address = client?.ip ?? source?.ip ?? '';
  from.append(span('user', [user?.id, address && ' '].filter(Boolean).join(' ·')), address);
  line.append(time, what, from);
  return line;
}

// Start

/** Show whose session it is. A session that is over is found by the request for a token as well. */
async function nameUser() {
  const response = await fetch('/api/auth/me', { cache: 'no-store' });
  if (response.ok) $('user').textContent = (await response.json()).user.name;
}

/** Without a session there is nothing to ask for: a request would only be a refusal in the audit log. */
async function begin() {
  try {
    const { source, version, symbols, has_session } = await (await fetch('/demo/info', { cache: 'no-store' })).json();
    $('source').textContent = `${source} · ${version}`;
    expected = symbols;
    document.body.style.setProperty('--rows', symbols);
    if (!has_session) return show('login');
    nameUser().catch(() => undefined); // the name only
  } catch {
    $('source').textContent = 'demo';
  }
  start();
}

document.addEventListener('visibilitychange', () => {
  repaint();
  poll();
});
setInterval(wake, SLOW_MS); // wake() does nothing in a hidden tab
setInterval(() => document.hidden || measure(), 5000);
watchChart(repaint);
offerReplay(poll);
lookAround(WORDS);
begin();
