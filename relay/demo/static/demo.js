// @ts-check
/**
 * The demo page: live prices over a scoped token, and what a script on this page can and can't read.
 *
 * Frames only change the rows in memory. The page is written once per animation frame, each cell only if its text
 * changed, and nothing is read from the layout. A hidden tab gets no animation frames, so it writes nothing.
 */
import { createStream, fetchToken } from '/client/relay-client.js';

const PATTERN = 'prices.>';
const SLOW_MS = 250; // update interval of ages, countdowns and the chart: a person reads no faster
const FLASH_MS = 220;
const AGEING_MS = 2000;
const OLD_MS = 5000; // the endpoint's limit for a silent publisher
const SAMPLE_MS = 250;
const SAMPLES = 1300; // a little more than the chart's longest window
const WINDOW_MS = { least: 20_000, most: 300_000 };
const POLL_MS = 2000;

const $ = (/** @type {string} */ id) => /** @type {HTMLElement} */ (document.getElementById(id));
const clock = (/** @type {number} */ ms) => new Date(ms).toLocaleTimeString('en-GB');

/** An element whose text is written only if it changed, always into the same node. */
class Cell {
  /** @param {HTMLElement} element */
  constructor(element) {
    this.element = element;
    this.text = element.textContent ?? '';
    this.look = element.className;
    this.node = document.createTextNode(this.text);
    if (element.childElementCount === 0) element.replaceChildren(this.node);
  }

  show(/** @type {string} */ text) {
    if (text === this.text) return;
    this.text = text;
    this.node.data = text;
  }

  dress(/** @type {string} */ look) {
    if (look === this.look) return;
    this.look = look;
    this.element.className = look;
  }
}

const cells = Object.fromEntries(
  ['m-rate', 'm-rtt', 'm-age', 'conn-state', 'conn-detail', 'chart-symbol', 'chart-mid', 'chart-change', 'chart-window',
    'token-used', 'token-left', 'proof-badge', 'proof-cookie', 'proof-local', 'proof-session', 'proof-words'].map(
    (id) => [id, new Cell($(id))],
  ),
);

// Numbers: prices are decimal strings and are shown as such. Only differences are computed.

function places(/** @type {string} */ text) {
  const dot = text.indexOf('.');
  if (dot < 0) return 0;
  let end = text.length;
  while (text[end - 1] === '0') end--;
  return end - dot - 1;
}

function decimal(/** @type {string} */ text, /** @type {number} */ digits) {
  const [whole, part = ''] = text.split('.');
  const grouped = whole.length > 3 ? whole.replace(/\B(?=(\d{3})+$)/g, ',') : whole;
  return digits ? `${grouped}.${part.slice(0, digits).padEnd(digits, '0')}` : grouped;
}

function percent(/** @type {number} */ ratio) {
  const text = Math.abs(ratio * 100).toFixed(2);
  if (text === '0.00') return '0.00%';
  return `${ratio < 0 ? '−' : '+'}${text}%`;
}

function duration(/** @type {number} */ ms) {
  if (ms < 10_000) return `${(Math.max(ms, 0) / 1000).toFixed(1)} s`;
  if (ms < 120_000) return `${Math.floor(ms / 1000)} s`;
  if (ms < 5_400_000) return `${Math.floor(ms / 60_000)} m`;
  return `${Math.floor(ms / 3_600_000)} h`;
}

const trend = (/** @type {number} */ ratio) => (Math.abs(ratio) < 0.00005 ? '' : ratio > 0 ? 'rose' : 'fell');

// The table

/** @type {Map<string, Row>} */
const rows = new Map();
/** @type {Set<Row>} */
const dirty = new Set();
/** @type {Set<Row>} */
const flashing = new Set();
/** @type {Row | undefined} */
let selected;

/** One symbol: its newest frame, its history, and its cells. */
class Row {
  constructor(/** @type {string} */ symbol) {
    this.symbol = symbol;
    /** @type {import('/client/relay-client.js').DataFrame | undefined} */
    this.frame = undefined;
    this.stale = false;
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
    const now = performance.now();
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

  /** Show the price's age on the server's clock, and mark old rows. Returns the age in milliseconds. */
  judge(/** @type {number} */ serverNow) {
    const age = this.frame ? serverNow - this.frame.ts : NaN;
    const verdict = this.stale ? 'stale' : age >= OLD_MS ? 'dead' : age >= AGEING_MS ? 'old' : '';
    this.cells.age.show(Number.isNaN(age) ? '–' : duration(age));
    this.line.dress(this === selected ? `${verdict} selected` : verdict);
    return age;
  }
}

function rowOf(/** @type {string} */ symbol) {
  let row = rows.get(symbol);
  if (!row) {
    row = new Row(symbol);
    const after = [...rows.keys()].filter((other) => other > symbol).sort()[0];
    $('rows').insertBefore(row.line.element, rows.get(after)?.line.element ?? null);
    rows.set(symbol, row);
    $('rows-empty').hidden = true;
    if (!selected || (symbol.startsWith('BTC') && !chosen)) select(row, false);
  }
  return row;
}

let chosen = false; // whether the user has selected a symbol; until then it is BTC

function select(/** @type {Row} */ row, byUser = true) {
  chosen ||= byUser;
  selected?.button.setAttribute('aria-pressed', 'false');
  selected = row;
  row.button.setAttribute('aria-pressed', 'true');
  cells['chart-symbol'].show(row.symbol);
  slowAt = 0;
  wake();
}

// The chart of the selected symbol

const canvas = /** @type {HTMLCanvasElement} */ ($('chart'));
const pen = /** @type {CanvasRenderingContext2D} */ (canvas.getContext('2d'));
const plot = { width: 0, height: 0, ratio: 1, pointer: NaN };
/** @type {Record<string, string>} */
let ink = {};

function readInk() {
  const style = getComputedStyle(document.documentElement);
  const colour = (/** @type {string} */ name) => style.getPropertyValue(name).trim();
  ink = { line: colour('--accent'), area: colour('--area'), grid: colour('--line'), text: colour('--muted'),
    strong: colour('--text'), tag: colour('--on-accent'), panel: colour('--panel'), font: `11px ${colour('--sans')}` };
}

function niceStep(/** @type {number} */ span, /** @type {number} */ count) {
  const rough = span / count;
  const magnitude = 10 ** Math.floor(Math.log10(rough));
  return [1, 2, 2.5, 5, 10].map((factor) => factor * magnitude).find((step) => step >= rough) ?? rough;
}

/** The samples of the window, oldest first, ended by the newest price as of now. */
function samplesOf(/** @type {Row} */ row, /** @type {number} */ from, /** @type {number} */ now) {
  const points = [];
  for (let i = Math.max(0, row.count - SAMPLES); i < row.count; i++) {
    const time = row.times[i % SAMPLES];
    if (time >= from) points.push([time, row.mids[i % SAMPLES]]);
  }
  if (row.mid && !row.stale) points.push([now, row.mid]);
  return points;
}

function drawChart(/** @type {number} */ now) {
  const { width, height, ratio } = plot;
  pen.setTransform(ratio, 0, 0, ratio, 0, 0);
  pen.clearRect(0, 0, width, height);
  const row = selected;
  if (!row?.count || !row.mid || width < 80 || height < 60) return;

  const begun = row.times[Math.max(0, row.count - SAMPLES) % SAMPLES];
  const span = Math.min(WINDOW_MS.most, Math.max(WINDOW_MS.least, now - begun));
  const points = samplesOf(row, now - span, now);
  if (!points.length) return;
  let [low, high] = [Infinity, -Infinity];
  for (const [, mid] of points) {
    low = Math.min(low, mid);
    high = Math.max(high, mid);
  }
  const least = Math.max(10 ** -row.digits * 6, row.mid * 1e-5);
  const margin = Math.max((high - low) * 0.12, (least - (high - low)) / 2);
  low -= margin;
  high += margin;

  pen.font = ink.font;
  pen.textBaseline = 'middle';
  const label = (/** @type {number} */ price) => decimal(price.toFixed(row.digits), row.digits);
  const gutter = Math.ceil(pen.measureText(label(high)).width) + 14;
  const [right, bottom, top] = [width - gutter, height - 18, 6];
  const x = (/** @type {number} */ time) => right - ((now - time) / span) * right;
  const y = (/** @type {number} */ price) => bottom - ((price - low) / (high - low)) * (bottom - top);

  drawGrid({ low, high, right, bottom, span, now, x, y, label, mid: row.mid });

  pen.beginPath();
  points.forEach(([time, mid], i) => (i ? pen.lineTo(x(time), y(mid)) : pen.moveTo(x(time), y(mid))));
  pen.strokeStyle = ink.line;
  pen.lineWidth = 1.5;
  pen.lineJoin = 'round';
  pen.stroke();
  pen.lineTo(x(points[points.length - 1][0]), bottom);
  pen.lineTo(x(points[0][0]), bottom);
  pen.fillStyle = ink.area;
  pen.fill();

  tag(label(row.mid), right, y(row.mid), ink.line, ink.tag);
  drawPointer({ points, right, bottom, top, x, y, label });
  const minutes = Math.round(span / 60_000);
  cells['chart-window'].show(`mid, last ${span < 90_000 ? `${Math.round(span / 1000)} s` : `${minutes} min`}`);
}

function drawGrid(/** @type {any} */ { low, high, right, bottom, span, now, x, y, label, mid }) {
  pen.strokeStyle = ink.grid;
  pen.fillStyle = ink.text;
  pen.lineWidth = 1;
  pen.textAlign = 'left';
  pen.beginPath();
  const step = niceStep(high - low, Math.min(8, Math.max(2, Math.floor(bottom / 34))));
  for (let price = Math.ceil(low / step) * step; price < high; price += step) {
    const line = Math.round(y(price)) + 0.5;
    pen.moveTo(0, line);
    pen.lineTo(right, line);
    if (Math.abs(line - y(mid)) > 16) pen.fillText(label(price), right + 8, line);
  }
  pen.textAlign = 'center';
  const every = [10, 15, 30, 60, 120].map((s) => s * 1000).find((ms) => (ms / span) * right >= 76) ?? 120_000;
  const wall = Date.now() - now; // performance.now() to the wall clock, so that labels fall on round times
  for (let time = Math.ceil((now - span + wall) / every) * every - wall; time <= now; time += every) {
    const column = Math.round(x(time)) + 0.5;
    if (column < 26 || column > right - 22) continue;
    pen.moveTo(column, bottom);
    pen.lineTo(column, bottom + 4);
    pen.fillText(clock(time + wall), column, bottom + 11);
  }
  pen.moveTo(0, bottom + 0.5);
  pen.lineTo(right, bottom + 0.5);
  pen.stroke();
}

function tag(/** @type {string} */ text, /** @type {number} */ left, /** @type {number} */ middle, /** @type {string} */ fill,
  /** @type {string} */ colour) {
  pen.fillStyle = fill;
  pen.fillRect(left + 1, Math.round(middle) - 9, plot.width - left - 1, 18);
  pen.fillStyle = colour;
  pen.textAlign = 'left';
  pen.fillText(text, left + 8, Math.round(middle) + 0.5);
}

function drawPointer(/** @type {any} */ { points, right, bottom, top, x, y, label }) {
  if (!(plot.pointer < right)) return;
  const [time, mid] = points.reduce((/** @type {number[]} */ best, /** @type {number[]} */ point) =>
    Math.abs(x(point[0]) - plot.pointer) < Math.abs(x(best[0]) - plot.pointer) ? point : best);
  pen.strokeStyle = ink.text;
  pen.setLineDash([3, 3]);
  pen.beginPath();
  pen.moveTo(x(time), top);
  pen.lineTo(x(time), bottom);
  pen.moveTo(0, y(mid));
  pen.lineTo(right, y(mid));
  pen.stroke();
  pen.setLineDash([]);
  tag(label(mid), right, y(mid), ink.grid, ink.strong);
  const text = clock(time + Date.now() - performance.now());
  const half = pen.measureText(text).width / 2 + 6;
  pen.fillStyle = ink.grid;
  pen.fillRect(x(time) - half, bottom + 2, half * 2, 16);
  pen.fillStyle = ink.strong;
  pen.textAlign = 'center';
  pen.fillText(text, x(time), bottom + 10.5);
}

new ResizeObserver(([entry]) => {
  const { width, height } = entry.contentRect;
  plot.width = width;
  plot.height = height;
  plot.ratio = devicePixelRatio;
  canvas.width = Math.round(width * plot.ratio);
  canvas.height = Math.round(height * plot.ratio);
  drawChart(performance.now());
}).observe(canvas);
canvas.addEventListener('pointermove', (event) => point(event.offsetX));
canvas.addEventListener('pointerleave', () => point(NaN));
matchMedia('(prefers-color-scheme: light)').addEventListener('change', readInk);

function point(/** @type {number} */ at) {
  plot.pointer = at;
  slowAt = 0;
  wake();
}

// Painting: once per animation frame, never in a hidden tab

let frame = 0;
let slowAt = 0;
let received = 0;
let rate = { at: performance.now(), count: 0 };

function wake() {
  if (!frame && !document.hidden) frame = requestAnimationFrame(paint);
}

function paint(/** @type {number} */ now) {
  frame = 0;
  for (const row of dirty) row.paint(now);
  dirty.clear();
  if (selected?.mid) {
    const { mid, digits, change = 0 } = selected;
    cells['chart-mid'].show(decimal(mid.toFixed(digits), digits));
    cells['chart-change'].show(percent(change));
    cells['chart-change'].dress(`change ${trend(change)}`);
  }
  for (const row of flashing) {
    if (row.until > now) continue;
    row.unflash();
    flashing.delete(row);
  }
  if (now < slowAt) return;
  slowAt = now + SLOW_MS - 20;
  paintSlow(now);
}

function paintSlow(/** @type {number} */ now) {
  const serverNow = stream?.serverNow() ?? NaN;
  let oldest = -Infinity;
  for (const row of rows.values()) oldest = Math.max(oldest, row.judge(serverNow));
  cells['m-age'].show(oldest >= 0 ? duration(oldest) : '–');
  if (now - rate.at >= 1000) {
    cells['m-rate'].show(String(Math.round((received - rate.count) / ((now - rate.at) / 1000))));
    rate = { at: now, count: received };
    lookAround();
  }
  paintConnection(now);
  paintToken(serverNow);
  drawChart(now);
}

// The connection

/** @type {import('/client/relay-client.js').Stream | undefined} */
let stream;
/** @type {import('/client/relay-client.js').StateChange & { since: number, silent?: boolean } | undefined} */
let link;
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
    if (link) link.silent = silent;
    slowAt = 0;
    wake();
  });
  stream.on('refreshed', tokenUsed);
  stream.on('welcome', () => {
    everOpen = true;
    tokenUsed();
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
      wake();
    },
    onError: ({ code, message }) => refuse(`The subscription was refused: ${message || code}`),
  });
}

function linkChanged(/** @type {import('/client/relay-client.js').StateChange} */ change) {
  link = { ...change, since: performance.now() };
  if (change.state === 'waiting' && document.body.dataset.view === 'boot') show('desk');
  if (change.state === 'stopped') {
    if (change.status === 401 && !everOpen) show('login');
    else refuse(change.code ? `The server closed this socket with code ${change.code} (${change.reason}).`
      : `The token issuer answered ${change.status} (${change.reason}).`, MEANING[/** @type {4501} */ (change.code)]);
  }
  slowAt = 0;
  wake();
}

function paintConnection(/** @type {number} */ now) {
  if (!link) return;
  const { state, code, status, reason, retryInMs = 0, since, silent } = link;
  const left = Math.max(0, Math.ceil((retryInMs - (now - since)) / 1000));
  const why = [code ?? status, reason].filter(Boolean).join(' ');
  const [tone, word, detail] = {
    connecting: ['idle', 'connecting', ''],
    open: silent ? ['warn', 'silent', 'prices may be old'] : ['good', 'live', ''],
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
  cells['m-rtt'].show(Number.isNaN(ms) ? '–' : ms < 10 ? ms.toFixed(1) : ms.toFixed(0));
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
  $('ended-text').textContent = `${meaning} The prices below no longer change and are marked stale.`.trim();
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
  if (!answer.ok) {
    complain(answer.body.message || `The server answered ${answer.status}.`);
    return password.focus();
  }
  $('user').textContent = answer.body.user?.name ?? email.value;
  show('desk');
  start();
});

$('logout').addEventListener('click', async () => {
  const button = /** @type {HTMLButtonElement} */ ($('logout'));
  button.disabled = true;
  const answer = await post('/api/auth/logout', undefined);
  button.disabled = false;
  if (!answer.ok) cells['conn-detail'].show(`logout failed: ${answer.body.message || answer.status}`);
  const left = stream;
  setTimeout(() => {
    if (!answer.ok || left?.state === 'stopped') return;
    left?.close();
    refuse('You are logged out. The server did not close the WebSocket within 3 seconds, so this page closed it.');
  }, 3000);
});

$('again').addEventListener('click', () => show('login'));

// Tokens on this page: the scoped token, and no access token

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

function holdToken(/** @type {import('/client/relay-client.js').Grant} */ { wsToken, endpoint }) {
  Object.assign(token, { text: wsToken, endpoint, claims: decodePart(wsToken.split('.')[1]), usedAt: undefined });
  if (!$('user').textContent) $('user').textContent = token.claims.sub;
  const list = Object.entries(CLAIMS)
    .filter(([name]) => name in token.claims)
    .map(([name, meaning]) => claimLine(name, meaning, token.claims[name]));
  $('claims').replaceChildren(...list);
}

function tokenUsed() {
  token.usedAt = stream?.serverNow();
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

function paintToken(/** @type {number} */ serverNow) {
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

/** Read every second what an injected script could read. */
function lookAround() {
  const places = {
    'proof-cookie': document.cookie ? document.cookie.split('; ') : [],
    'proof-local': Object.entries(localStorage).map((pair) => pair.join('=')),
    'proof-session': Object.entries(sessionStorage).map((pair) => pair.join('=')),
  };
  const found = Object.values(places).flat();
  const leaked = found.some((text) => /eyJ[\w-]+\.[\w-]+/.test(text));
  for (const [id, entries] of Object.entries(places))
    cells[id].show(entries.length ? entries.map((text) => text.split('=')[0]).join(', ') : 'empty');
  cells['proof-badge'].show(leaked ? 'a token is readable!' : `not readable · checked at ${clock(Date.now())}`);
  cells['proof-badge'].dress(`badge ${leaked ? 'bad' : 'good'}`);
  cells['proof-words'].show(leaked
    ? 'A value here looks like a token, and every script on this page can steal it.'
    : `${found.length ? 'None of these is a token. ' : ''}The session is in an HttpOnly cookie: the browser sends it, ` +
      'and no script can read it. An injected script could steal the token above, which is used and short-lived. While ' +
      'it runs it could also request new ones; each opens one WebSocket.');
}

let replaying = false;

/** Try the used token in the first frame, because a browser's script sees the reason of a refusal only there. */
function replay() {
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
    else if (code === 3000) sayReplay(`Refused with close code ${code}, ${reason || 'no reason'}.`, ' The prices continue.');
    else sayReplay(`Closed with code ${code} ${reason}.`.replace(' .', '.'), ' The server has not checked the token.', true);
    setTimeout(poll, 300); // by then the refusal is in the audit log
  };
}

function sayReplay(/** @type {string} */ strong, /** @type {string} */ rest, bad = false) {
  const lead = document.createElement('strong');
  lead.textContent = strong;
  $('replay-result').replaceChildren(lead, rest);
  $('replay-result').className = bad ? 'bad' : '';
  slowAt = 0;
  wake();
}

$('replay').addEventListener('click', replay);

// The audit log

let polling = 0;
let auditShown = '';

async function poll() {
  clearTimeout(polling);
  if (document.hidden || !/desk|ended/.test(document.body.dataset.view ?? '')) return;
  polling = setTimeout(poll, POLL_MS);
  try {
    const response = await fetch('/demo/audit?last=20', { cache: 'no-store' });
    if (!response.ok) return;
    const text = await response.text();
    if (text === auditShown) return;
    auditShown = text;
    $('audit').replaceChildren(...JSON.parse(text).events.reverse().map(auditLine));
  } catch {
    // the state of the connection shows that the server is away; the next poll tries again
  }
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

async function describe() {
  try {
    const { source, version } = await (await fetch('/demo/info')).json();
    $('source').textContent = `${source} · ${version}`;
  } catch {
    $('source').textContent = 'demo';
  }
}

document.addEventListener('visibilitychange', () => {
  slowAt = 0;
  wake();
  poll();
});
setInterval(wake, SLOW_MS); // wake() does nothing in a hidden tab
setInterval(() => document.hidden || measure(), 5000);
readInk();
lookAround();
describe();
start();
