// @ts-check
// The one place that decides how fresh the page is. Whatever shows something live asks here, and is painted by the answer.

const AGEING_MS = 2000;
const OLD_MS = 5000; // the endpoint's limit for a silent publisher
const SLEEP_MS = 1500; // the clocks part by more than this: the computer slept, or the clock was set

export class Freshness {
  /** @type {import('/client/relay-client.js').StateChange & { since: number } | undefined} */
  link = undefined; // the stream's state
  silent = false; // no heartbeat came in time
  #woke = -Infinity; // of performance.now(), which may stand still while the computer sleeps
  #apart = Date.now() - performance.now();

  /** To be called before each paint: prices from before a sleep are older than any clock of the page tells. */
  look(/** @type {number} */ now) {
    const apart = Date.now() - now;
    if (apart - this.#apart > SLEEP_MS) this.#woke = now;
    this.#apart = apart;
  }

  /** Whether prices can arrive now. */
  get connected() {
    return this.link?.state === 'open' && !this.silent;
  }

  /**
   * How a price looks: `stale` (nothing is known of now), `dead` or `old` (valid, and long unchanged), or ''.
   * @param {{ stale: boolean, heard: number }} row @param {number} age in milliseconds
   */
  price({ stale, heard }, age) {
    if (stale || !this.connected || heard < this.#woke) return 'stale';
    return age >= OLD_MS ? 'dead' : age >= AGEING_MS ? 'old' : '';
  }

  /** Whether something that is read every `every` ms was last read too long ago. */
  isOld(/** @type {number} */ heard, /** @type {number} */ every) {
    return heard < this.#woke || performance.now() - heard > 2.5 * every;
  }
}
