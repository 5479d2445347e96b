// The one place that decides how fresh the page is. Nothing on the page may look newer than the relay's last answer.
//
// Everything that shows something live lies in an element with `data-live`. Without answers it gets `data-stale="true"`: the style
// sheet takes the colours away, words of `verdict` become "was …", ages of `age` grow, and buttons of the class `acts` can't be used.

import { ago } from "./charts.js";

/** Shows a word that says how something is now, with its colour. */
export function verdict(element, word, tone) {
  element.dataset.word = word;
  element.dataset.tone = tone ?? "";
  element.textContent = word;
}

/** Shows an age in seconds. */
export function age(element, seconds, suffix = "") {
  element.dataset.age = seconds;
  element.dataset.suffix = suffix;
  element.textContent = ago(seconds) + suffix;
}

// both clocks: one may stand still while the computer sleeps, the other may be set back
const now = () => [performance.now(), Date.now()];
const since = (then) => Math.max(...now().map((time, index) => time - then[index]));

export class Freshness {
  #heard = null; // when the last answers came; null before the first ones
  #failed = false;
  #returned = false; // the tab was hidden and asked nothing; its first answers are on their way
  #leftOut = []; // the sections that the last answers did not bring

  /**
   * All sections are stale after a request that failed, and without answers for `limit_ms`. `show` is called after each request and
   * every second, with whether they are stale, the age of the last answers in milliseconds, and whether the tab was hidden since.
   */
  constructor(limit_ms, show) {
    this.limit_ms = limit_ms;
    this.show = show;
    setInterval(() => this.#judge(), 1000);
    document.addEventListener("visibilitychange", () => {
      this.#returned = !document.hidden;
      this.#judge();
    });
  }

  /** All answers came and are shown, but for these sections. */
  heard(leftOut = []) {
    this.#heard = now();
    this.#failed = this.#returned = false;
    this.#leftOut = leftOut;
    this.#judge();
  }

  /** A request failed. */
  lost() {
    this.#failed = true;
    this.#returned = false;
    this.#judge();
  }

  /** Nothing is shown any more. */
  forget() {
    this.#heard = null;
  }

  #judge() {
    if (!this.#heard) return;
    const passed_ms = since(this.#heard);
    const stale = this.#failed || passed_ms > this.limit_ms;
    for (const section of document.querySelectorAll("[data-live]")) {
      const isOld = stale || this.#leftOut.includes(section);
      if (section.dataset.stale !== String(isOld)) mark(section, isOld);
      if (stale)
        for (const element of section.querySelectorAll("[data-age]"))
          element.textContent = ago(Number(element.dataset.age) + passed_ms / 1000) + element.dataset.suffix;
    }
    this.show(stale, passed_ms, this.#returned);
  }
}

function mark(section, isOld) {
  section.dataset.stale = isOld;
  for (const element of section.querySelectorAll("[data-word]"))
    element.textContent = isOld ? `was ${element.dataset.word}` : element.dataset.word;
  for (const button of section.querySelectorAll("button.acts")) button.disabled = isOld;
}
