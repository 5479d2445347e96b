// @ts-check
// The chart of the selected symbol. The page paints it and the headline from the same row, so both show one price.

import { $, Cell, clock, decimal, duration } from './text.js';

export const SAMPLES = 1300; // a little more than the chart's longest window
const WINDOW_MS = { least: 20_000, most: 300_000 };

const canvas = /** @type {HTMLCanvasElement} */ ($('chart'));
const pen = /** @type {CanvasRenderingContext2D} */ (canvas.getContext('2d'));
const plot = { width: 0, height: 0, ratio: 1, pointer: NaN };
const note = new Cell($('chart-window'));
/** @type {Record<string, string>} */
let ink = {};

function readInk() {
  const style = getComputedStyle(document.documentElement);
  const colour = (/** @type {string} */ name) => style.getPropertyValue(name).trim();
  ink = { line: colour('--accent'), area: colour('--area'), grid: colour('--line'), text: colour('--muted'),
    strong: colour('--text'), tag: colour('--on-accent'), font: `11px ${colour('--sans')}` };
}

function niceStep(/** @type {number} */ span, /** @type {number} */ count) {
  const rough = span / count;
  const magnitude = 10 ** Math.floor(Math.log10(rough));
  return [1, 2, 2.5, 5, 10].map((factor) => factor * magnitude).find((step) => step >= rough) ?? rough;
}

/** The samples of the window, oldest first. They end now only if the price is valid now. */
function samplesOf(/** @type {Row} */ row, /** @type {number} */ from, /** @type {number} */ now) {
  const points = [];
  for (let i = Math.max(0, row.count - SAMPLES); i < row.count; i++) {
    const time = row.times[i % SAMPLES];
    if (time >= from) points.push([time, row.mids[i % SAMPLES]]);
  }
  points.push([row.look === 'stale' ? row.heard : now, row.mid]);
  return points;
}

/** Draw a row's prices. @param {any} row @param {number} now */
export function drawChart(row, now) {
  const { width, height, ratio } = plot;
  pen.setTransform(ratio, 0, 0, ratio, 0, 0);
  pen.clearRect(0, 0, width, height);
  if (!row?.count || !row.mid || width < 80 || height < 60) return;
  const isOld = /stale|dead/.test(row.look);

  const begun = row.times[Math.max(0, row.count - SAMPLES) % SAMPLES];
  const span = Math.min(WINDOW_MS.most, Math.max(WINDOW_MS.least, now - begun));
  const points = samplesOf(row, now - span, now);
  let [low, high] = [Infinity, -Infinity];
  for (const [, mid] of points) {
    low = Math.min(low, mid);
    high = Math.max(high, mid);
  }
  const [lowest, highest] = [low, high];
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
  pen.strokeStyle = isOld ? ink.text : ink.line;
  pen.lineWidth = 1.5;
  pen.lineJoin = 'round';
  pen.stroke();
  pen.lineTo(x(points[points.length - 1][0]), bottom);
  pen.lineTo(x(points[0][0]), bottom);
  pen.fillStyle = ink.area;
  if (!isOld) pen.fill();

  tag(row.midText, right, y(row.mid), isOld ? ink.grid : ink.line, isOld ? ink.text : ink.tag);
  drawPointer({ points, right, bottom, top, x, y, label });
  const window = span < 90_000 ? `${Math.round(span / 1000)} s` : `${Math.round(span / 60_000)} min`;
  note.show(isOld ? `${row.look === 'stale' ? 'stale, ' : ''}${duration(row.age)} old` : `mid, last ${window}`);
  canvas.setAttribute('aria-label', `${row.symbol}, mid ${row.midText}, ${note.text}; between ${label(lowest)} and ${label(highest)} in ${window}`);
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

/** Call `repaint` when the chart must be drawn again although no price has changed. */
export function watchChart(/** @type {() => void} */ repaint) {
  new ResizeObserver(([entry]) => {
    const { width, height } = entry.contentRect;
    Object.assign(plot, { width, height, ratio: devicePixelRatio });
    canvas.width = Math.round(width * plot.ratio);
    canvas.height = Math.round(height * plot.ratio);
    repaint();
  }).observe(canvas);
  const point = (/** @type {number} */ at) => {
    plot.pointer = at;
    repaint();
  };
  canvas.addEventListener('pointermove', (event) => point(event.offsetX));
  canvas.addEventListener('pointerleave', () => point(NaN));
  matchMedia('(prefers-color-scheme: light)').addEventListener('change', () => {
    readInk();
    repaint();
  });
  readInk();
}
