// Questions to the whole audit log. The answer is a table of texts, and says up to which record it knows the log: it is not live.

const SHOWN = 1000; // rows
const NEWEST = 1000; // steps of a story
const SOON_MS = 3000; // after this time without an answer, the page says what may take so long
export const LONGEST_MS = 40_000; // the relay ends a question after 30 s

const QUESTIONS = {
  story: { title: "Story of a user, session, token or connection", about: "Name or id", newest: true,
    columns: ["at", "action", "user", "address", "sentence", "marks"] },
  address: { title: "Story of an address", about: "Address", newest: true,
    columns: ["at", "action", "user", "sentence", "marks", "token"] },
  publisher: { title: "Story of a publisher", about: "Publisher", newest: true,
    columns: ["at", "action", "address", "sentence"] },
  channel: { title: "Who published on a channel", about: "Channel or pattern",
    columns: ["publisher", "address", "channel", "count", "first", "last", "since", "until"] },
  sent: { title: "What a user or session was sent", about: "Name or id",
    columns: ["user", "channel", "count", "first", "last", "complete", "since", "until", "connection"] },
  connected: { title: "Who was connected to an endpoint", about: "Endpoint",
    columns: ["user", "address", "since", "until", "channels", "connection"] },
  refusals: { title: "Refusals by day", about: "", columns: ["day", "action", "reason", "count"] },
};
const CLASSES = Object.fromEntries([
  ...["count", "first", "last"].map((name) => [name, "n"]),
  ...["at", "since", "until", "day", "action", "reason"].map((name) => [name, "whole"]),
  ...["sentence", "channels"].map((name) => [name, "long"]),
]);

const $ = (id) => document.getElementById(id);

/** The form and its answer. `ask` reads a path with the operator's key, `make` makes an element, `reason` words an error. */
export class Questions {
  #turn = 0; // grows with each question, so that a late answer to an earlier one is ignored

  constructor({ ask, make, reason }) {
    this.ask = ask;
    this.make = make;
    this.reason = reason;
    $("question").append(...Object.entries(QUESTIONS).map(([value, { title }]) => make("option", { value, text: title })));
    $("question").addEventListener("change", () => this.#chosen());
    $("question-form").addEventListener("submit", (event) => {
      event.preventDefault();
      void this.#send();
    });
    this.#chosen();
  }

  /** Forgets the question and its answer. */
  clear() {
    this.#begin("");
    for (const id of ["question-name", "question-since", "question-until"]) $(id).value = "";
    $("question-send").disabled = false;
  }

  #chosen() {
    const { about } = QUESTIONS[$("question").value];
    $("question-about").textContent = about;
    $("question-name-field").hidden = !about;
  }

  #begin(state) {
    this.#turn += 1;
    $("question-error").textContent = "";
    $("question-state").textContent = state;
    $("question-notes").textContent = "";
    $("answer").hidden = true;
    $("answer-head").replaceChildren();
    $("answer-rows").replaceChildren();
    return this.#turn;
  }

  async #send() {
    const question = $("question").value;
    const asked = QUESTIONS[question];
    const given = Object.fromEntries(["name", "since", "until"].map((name) => [name, $(`question-${name}`).value.trim()]));
    if (!asked.about) given.name = "";
    const turn = this.#begin("Reading the log…");
    const late = setTimeout(() => {
      $("question-state").textContent = "Reading the log… The first question to a long log makes its index, which may take minutes.";
    }, SOON_MS);
    $("question-send").disabled = true;
    try {
      const query = new URLSearchParams(Object.entries(given).filter(([, value]) => value));
      const answer = await this.ask(`/v1/audit/questions/${question}?${query}`);
      if (turn === this.#turn) this.#show(asked, answer);
    } catch (error) {
      if (turn !== this.#turn) return;
      $("question-state").textContent = "";
      $("question-error").textContent = this.reason(error);
    } finally {
      clearTimeout(late);
      if (turn === this.#turn) $("question-send").disabled = false;
    }
  }

  #show({ title, columns, newest }, { rows, notes }) {
    const shown = rows.slice(0, SHOWN);
    const count = `${rows.length.toLocaleString("en")} ${rows.length === 1 ? "row" : "rows"}`;
    const rest = shown.length < rows.length ? `, the first ${SHOWN} are shown` : "";
    const older = newest && rows.length === NEWEST ? "; there may be older ones: give a time" : "";
    $("question-state").textContent = rows.length ? `${title}: ${count}${rest}${older}. Times are in UTC.` : "The log has nothing about it in this time.";
    $("question-notes").textContent = notes.join(" ");
    $("answer").hidden = !rows.length;
    $("answer-head").replaceChildren(...columns.map((name) => this.make("th", { scope: "col", className: CLASSES[name] ?? "", text: name })));
    $("answer-rows").replaceChildren(...shown.map((row) => this.make("tr", {},
      ...columns.map((name) => {
        const made = this.make("td", { className: CLASSES[name] ?? "", text: cell(row[name], name) });
        made.dataset.name = name; // before the value, where a row is a block
        return made;
      }))));
  }
}

function cell(value, name) {
  if (value === null || value === undefined) return "";
  if (Array.isArray(value)) return value.join(", ");
  if (typeof value === "boolean") return value ? "yes" : "no";
  return name === "count" ? value.toLocaleString("en") : String(value); // other numbers are names: of a publication, for example
}
