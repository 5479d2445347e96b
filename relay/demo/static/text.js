// @ts-check
// What the page is written with: cells, and numbers as people read them.

export const $ = (/** @type {string} */ id) => /** @type {HTMLElement} */ (document.getElementById(id));
export const clock = (/** @type {number} */ ms) => new Date(ms).toLocaleTimeString('en-GB');

/** An element whose text is written only if it changed, always into the same node. */
export class Cell {
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

/** The cells of the elements with these ids, by id. */
export const cellsOf = (/** @type {string[]} */ ...ids) => Object.fromEntries(ids.map((id) => [id, new Cell($(id))]));

// Numbers: prices are decimal strings and are shown as such. Only differences are computed.

export function places(/** @type {string} */ text) {
  const dot = text.indexOf('.');
  if (dot < 0) return 0;
  let end = text.length;
  while (text[end - 1] === '0') end--;
  return end - dot - 1;
}

export function decimal(/** @type {string} */ text, /** @type {number} */ digits) {
  const [whole, part = ''] = text.split('.');
  const grouped = whole.length > 3 ? whole.replace(/\B(?=(\d{3})+$)/g, ',') : whole;
  return digits ? `${grouped}.${part.slice(0, digits).padEnd(digits, '0')}` : grouped;
}

export function percent(/** @type {number} */ ratio) {
  const text = Math.abs(ratio * 100).toFixed(2);
  if (text === '0.00') return '0.00%';
  return `${ratio < 0 ? '−' : '+'}${text}%`;
}

export function duration(/** @type {number} */ ms) {
  if (ms < 10_000) return `${(Math.max(ms, 0) / 1000).toFixed(1)} s`;
  if (ms < 120_000) return `${Math.floor(ms / 1000)} s`;
  if (ms < 5_400_000) return `${Math.floor(ms / 60_000)} m`;
  return `${Math.floor(ms / 3_600_000)} h`;
}

export const trend = (/** @type {number} */ ratio) => (Math.abs(ratio) < 0.00005 ? '' : ratio > 0 ? 'rose' : 'fell');
