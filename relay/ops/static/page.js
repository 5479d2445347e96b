// The ops page. The operator's key is in one variable of this module and nowhere else. Every text from outside is inserted as
// text, never as HTML (the content policy allows nothing else).

import { Chart, ago, quantile, short } from "./charts.js";
import { Freshness, age, verdict } from "./freshness.js";
import { showNodes } from "./nodes.js";
import { LONGEST_MS, Questions } from "./questions.js";
import { ACTIONS, facts, handles, subject } from "./records.js";

const EVERY_MS = 2000;
const STALE_MS = 3.5 * EVERY_MS; // three answers are missing
const MOMENTS = 300; // ten minutes
const CONNECTIONS_EVERY = 3; // requests
const CONNECTIONS_A_PAGE = 50;
const CHANNELS = 200;
const RECORDS = 50;
const MAX_RECORDS = 500;
const TIMEOUT_MS = 10_000;

const $ = (id) => document.getElementById(id);
let key = "";
let run = 0; // grows with each log-in and log-out, so that late answers of an earlier one are ignored
let before = null; // the statistics of the last request
let drawn = null; // the server's time of the charts' newest moment
let problem = ""; // why the last request failed
let seen = new Map(); // channel -> its position at the last request
const sent = new Map(); // publisher -> its count at the last request
let shown = CONNECTIONS_A_PAGE;
let records = [];
let asking = null;

function make(tag, options = {}, ...children) {
  const { className, text, ...rest } = options;
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (text !== undefined) element.textContent = text;
  for (const [name, value] of Object.entries(rest)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

class Refused extends Error {
  constructor(status, message) { super(message); this.status = status; }
}

async function ask(path, body, timeout_ms = TIMEOUT_MS) {
  const answer = await fetch(path, {
    method: body ? "POST" : "GET",
    headers: { Authorization: `Bearer ${key}`, ...(body && { "Content-Type": "application/json" }) },
    body: body && JSON.stringify(body),
    cache: "no-store",
    credentials: "omit",
    redirect: "error",
    signal: AbortSignal.timeout(timeout_ms),
  });
  const data = await answer.json().catch(() => null);
  if (answer.ok && data) return data;
  // a proxy's refusal says nothing about the key
  if (typeof data?.retryable !== "boolean") throw new Refused(0, `The answer ${answer.status} does not come from the relay.`);
  throw new Refused(answer.status, data.message);
}

// the numbers

const charts = [
  { title: "Connections", series: ["live"], format: short },
  { title: "Deliveries a second", series: ["delivered"], format: short },
  { title: "Latency", series: ["p50", "p99"], format: ago },
  { title: "Price age", series: ["newest", "oldest"], format: ago },
].map((options) => new Chart({ ...options, capacity: MOMENTS, step_s: EVERY_MS / 1000, parent: $("charts") }));

const tiles = [
  ["Connections", (now) => [short(now.connections), `${short(now.waiting)} without a token yet`]],
  ["Channels", (now) => {
    const all = Object.values(now.endpoints);
    const stale = sum(all.map((one) => one.stale));
    return [short(sum(all.map((one) => one.channels))), `${short(stale)} stale`, stale ? "warn" : "good"];
  }],
  ["Refusals a minute", (now, last) => {
    const count = refusals(now) - refusals(last ?? now);
    const rate = last ? (count * 60) / (now.at - last.at) : 0;
    return [last ? short(rate) : "–", `${short(refusals(now))} since the start`, rate > 0 ? "warn" : "good"];
  }],
  ["Conflated a second", (now, last) => [
    last ? short((now.hub.conflated - last.hub.conflated) / (now.at - last.at)) : "–",
    `${short(now.hub.overflows)} ended as too slow`]],
  ["Loop lag, p99", (now, last) => {
    const lag = last && quantile(now.times.bounds_s, last.times.loop_lag.counts, now.times.loop_lag.counts, 0.99);
    return [lag === null ? "–" : ago(lag), "delay of the event loop", lag > 0.1 ? "bad" : "good"];
  }],
  ["Audit log", (now) => [
    now.audit.lost ? `${short(now.audit.lost)} lost` : "complete",
    `${short(now.audit.waiting)} waiting to be written`, now.audit.lost ? "bad" : "good", !now.audit.lost]],
].map(([name, read]) => {
  const value = make("strong", { text: "–" });
  const note = make("small", { text: "\u00a0" });
  const tile = make("div", { className: "panel tile" }, make("span", { text: name }), value, note);
  $("tiles").append(tile);
  return (now, last) => {
    const [text, said, tone, isVerdict] = read(now, last);
    delete value.dataset.word;
    if (isVerdict) verdict(value, text);
    else value.textContent = text;
    note.textContent = said;
    tile.dataset.tone = tone ?? "";
  };
});

function sum(numbers) { return numbers.reduce((total, number) => total + number, 0); }
function refusals(stats) { return sum(stats.events.filter((one) => one.outcome === "failure").map((one) => one.count)); }

function showStats(now) {
  // after a restart the relay, or one of its workers, counts from 0 again; and one that does not answer is not in the sums
  const same = before && before.started_at === now.started_at && before.workers?.answered === now.workers?.answered;
  const last = same ? before : null;
  const passed = last ? now.at - last.at : 0;
  for (const update of tiles) update(now, passed > 0 ? last : null);
  const missed = drawn === null ? 0 : Math.round(((now.at - drawn) * 1000) / EVERY_MS) - 1; // a hidden tab requests nothing
  for (const chart of charts) chart.skip(missed);
  drawn = now.at;
  const ages = Object.values(now.endpoints).filter((one) => one.newest_s !== null);
  const flush = (share) => last && quantile(now.times.bounds_s, last.times.flush.counts, now.times.flush.counts, share);
  charts[0].add([now.connections]);
  charts[1].add([passed > 0 ? (now.hub.deliveries - last.hub.deliveries) / passed : null]);
  charts[2].add([flush(0.5), flush(0.99)]);
  charts[3].add(ages.length
    ? [Math.min(...ages.map((one) => one.newest_s)), Math.max(...ages.map((one) => one.oldest_s))] : [null, null]);
  before = now;
}

// what the bar and the charts say, as fresh as the last answers are

const fresh = new Freshness(STALE_MS, (stale, passed_ms, returned) => {
  if (!key) return;
  const { node, version, role, at, started_at, stopping, workers } = before;
  const known = stale ? `as of ${clock(at * 1000)}, ${ago(Math.round(passed_ms / 1000))} ago` : `up ${ago(at - started_at)}`;
  $("node").textContent = [node, version, ...(role === "all" ? [] : [role]), known].join(" · ");
  if (!stale && workers?.silent.length) return say(`no answer from ${workers.silent.join(", ")}`, "warn");
  if (!stale) return say(stopping ? "draining" : "live", stopping ? "warn" : "good");
  say(returned ? "asking" : problem || "no answer", returned ? "warn" : "bad");
  const missed = Math.floor(((at - drawn) * 1000 + passed_ms) / EVERY_MS);
  if (missed < 1) return;
  for (const chart of charts) chart.pass(missed);
  drawn += (missed * EVERY_MS) / 1000;
});

function say(text, tone) {
  if ($("state-text").textContent !== text) $("state-text").textContent = text;
  $("state").dataset.tone = tone;
}

// channels and connections: rows are updated and not replaced, so that focus and selection stay

function fill(body, rows, nameOf, create, update) {
  const old = new Map([...body.children].map((row) => [row.dataset.name, row]));
  rows.forEach((data, index) => {
    const name = nameOf(data);
    let row = old.get(name);
    if (!row) {
      row = create(data);
      row.dataset.name = name;
    }
    old.delete(name);
    update(row, data);
    if (body.children[index] !== row) body.insertBefore(row, body.children[index] ?? null);
  });
  for (const row of old.values()) row.remove();
}

function showPublishers(answer) {
  const rows = answer.publishers;
  $("publisher-panel").hidden = !rows.length;
  $("publisher-count").textContent = short(rows.length);
  fill($("publishers"), rows, (one) => one.publisher,
    (one) => make("tr", {}, make("th", { scope: "row", text: one.publisher }),
      ...Array.from({ length: 5 }, () => make("td", { className: "n" }))),
    (row, one) => {
      const [, rate, published, refused, dropped, heard] = row.children;
      const last = sent.get(one.publisher);
      const passed = last && one.published >= last.published ? answer.at - last.at : 0;
      rate.textContent = passed > 0 ? `${short((one.published - last.published) / passed)}/s` : "–";
      sent.set(one.publisher, { published: one.published, at: answer.at });
      published.textContent = short(one.published);
      refused.textContent = short(one.refused);
      refused.dataset.tone = one.refused ? "warn" : "";
      dropped.textContent = short(one.stale + one.duplicate);
      if (one.last_at === null) heard.textContent = "never";
      else age(heard, Math.max(0, answer.at - one.last_at), " ago");
    });
}

function showChannels(answer, at) {
  const next = new Map();
  $("channel-count").textContent = answer.total > answer.channels.length
    ? `${short(answer.channels.length)} of ${short(answer.total)}` : short(answer.total);
  $("no-channels").hidden = answer.channels.length > 0;
  fill($("channels"), answer.channels, (one) => one.channel,
    (one) => make("tr", {}, make("th", { scope: "row", text: one.channel, title: one.channel }),
      make("td", { className: "n" }), make("td", { className: "n" }), make("td", { className: "n" }), make("td")),
    (row, one) => {
      const last = seen.get(one.channel);
      const moved = last && last.epoch === one.epoch && at > last.at ? (one.seq - last.seq) / (at - last.at) : null;
      // an average over some polls: otherwise a channel with one tick in three seconds would jump between 0 and 0.5
      const rate = moved === null ? null : last.rate === null ? moved : last.rate * 0.7 + moved * 0.3;
      next.set(one.channel, { epoch: one.epoch, seq: one.seq, at, rate });
      const [, rateCell, last_value, readers, state] = row.children;
      rateCell.textContent = rate === null ? "–" : `${short(rate)}/s`;
      age(last_value, one.age_s);
      readers.textContent = short(one.subscribers);
      verdict(state, one.stale ? "stale" : "live", one.stale ? "warn" : "good");
    });
  seen = next;
}

function showConnections(answer) {
  $("connection-count").textContent = short(answer.total);
  $("no-connections").hidden = answer.connections.length > 0;
  $("more-connections").hidden = answer.next === null || shown >= 1000;
  fill($("connections"), answer.connections, (one) => one.id,
    (one) => {
      const cut = make("button", { type: "button", className: "quiet acts", text: "End session", "aria-label": `End session of ${one.user}` });
      cut.addEventListener("click", () => openCut(one));
      const who = make("button", { type: "button", className: "link", text: one.user, title: `Timeline of connection ${one.id}` });
      who.addEventListener("click", () => openStory("connection", one.id));
      const scope = one.scope.join(", ");
      return make("tr", {}, make("th", { scope: "row" }, who, make("small", { text: one.address })),
        make("td", {}, make("span", { className: "cut", text: scope, title: scope }), make("small", { text: one.endpoint })),
        make("td", { className: "n" }), make("td", { className: "n" }), make("td", { className: "n" }, cut));
    },
    (row, one) => {
      row.children[2].textContent = ago(one.age_s);
      row.children[3].textContent = short(one.messages_out);
    });
}

// the audit log

function query(more) {
  const asked = { limit: RECORDS, ...more };
  for (const name of ["action", "outcome", "about"]) if ($(name).value.trim()) asked[name] = $(name).value.trim();
  return `/v1/audit?${new URLSearchParams(asked)}`;
}

async function readRecords(path) {
  const answer = await ask(path);
  return { whole: answer.whole, records: answer.records.map((record, index) => ({ ...record, told: answer.told[index], position: answer.positions[index] })) };
}

function item(record) {
  const line = make("button", { type: "button", className: "line" },
    make("time", { datetime: record["@timestamp"], text: clock(record["@timestamp"]), title: record["@timestamp"] }),
    make("span", { className: "action", text: record.event.action }),
    make("span", { className: "says" }, make("b", { text: subject(record) }), ` ${record.told}`),
    ...(record.event.reason ? [make("span", { className: "reason", text: record.event.reason })] : []),
    ...(record.relay?.anomalies ?? []).map((mark) => make("span", { className: "mark", text: mark })));
  const [first] = handles(record);
  line.disabled = !first;
  if (first) line.addEventListener("click", () => openStory(...first));
  return make("li", { "data-outcome": record.event.outcome }, line);
}

function clock(timestamp) {
  const at = new Date(timestamp);
  return Number.isNaN(at.valueOf()) ? "?" : at.toLocaleTimeString("en-GB");
}

function showFeed(whole) {
  $("no-feed").hidden = records.length > 0;
  if (whole !== undefined) $("older").hidden = whole || records.length >= MAX_RECORDS;
  const known = new Map([...$("feed").children].map((row) => [row.dataset.position, row]));
  const rows = records.map((record) => {
    const row = known.get(record.position) ?? item(record);
    row.dataset.position = record.position;
    return row;
  });
  $("feed").replaceChildren(...rows);
}

async function readFeed(mine) {
  const filters = query({});
  const answer = await readRecords(records.length ? query({ after: records[0].position }) : filters);
  if (mine !== run || filters !== query({})) return; // the filters have changed
  if (records.length && !answer.records.length) return;
  // more records came than one answer holds: show only these, so that "Older" leaves nothing out
  const replaces = !records.length || !answer.whole;
  const focused = document.activeElement?.closest("#feed li")?.dataset.position;
  records = replaces ? answer.records : [...answer.records, ...records].slice(0, MAX_RECORDS);
  showFeed(replaces ? answer.whole : undefined);
  if (focused) $("feed").querySelector(`li[data-position="${CSS.escape(focused)}"] button`)?.focus({ preventScroll: true });
}

async function readOlder() {
  const mine = run;
  const filters = query({});
  const answer = await readRecords(query({ before: records.at(-1).position }));
  if (mine !== run || filters !== query({})) return;
  records = [...records, ...answer.records].slice(0, MAX_RECORDS);
  showFeed(answer.whole);
}

function filtersChanged() {
  records = [];
  showFeed(true);
  $("no-feed").hidden = true;
  void readFeed(run).catch(failed);
}

// the timeline of a token, a connection, a session or a user

async function openStory(kind, name) {
  const mine = run;
  $("story-title").textContent = `Timeline of ${kind === "user" ? "user " : `a ${kind}`}${kind === "user" ? name : ""}`;
  $("story-about").textContent = kind === "user" ? "" : name;
  $("timeline").replaceChildren(make("li", { text: "Reading the log…" }));
  if (!$("story").open) $("story").showModal();
  try {
    const answer = await ask(`/v1/audit/why?${new URLSearchParams({ about: name })}`);
    if (mine !== run) return;
    const steps = answer.steps.map((step) => make("li", { "data-outcome": step.outcome },
      make("time", { datetime: step.at, text: clock(step.at), title: step.at }),
      make("p", {}, make("b", { text: step.user || step.address }), ` ${step.sentence}`),
      make("dl", {}, ...facts(step).map(([term, value]) => make("div", {}, make("dt", { text: term }), make("dd", { text: value }))))));
    if (!answer.whole) steps.unshift(make("li", { className: "rest", text: "There may be older records: a question to the whole log finds them." }));
    $("timeline").replaceChildren(...(steps.length ? steps : [make("li", { text: "The newest part of the log has no record of it." })]));
  } catch (error) {
    $("timeline").replaceChildren(make("li", { text: `The log could not be read: ${reason(error)}` }));
  }
}

// ending a session

let cutting = null;

function openCut(connection) {
  cutting = connection;
  $("cut-error").textContent = "";
  $("cut-text").textContent = `All connections of this session of ${connection.user} are closed with code 4501, and its tokens are refused from now on. The user has to log in again. The audit log records the name of your key.`;
  $("cut-yes").disabled = false;
  $("cut").showModal();
}

async function cut() {
  $("cut-yes").disabled = true;
  try {
    await ask("/v1/revocations", { ref: cutting.session });
    $("cut").close();
    void look(run);
  } catch (error) {
    $("cut-error").textContent = reason(error);
    $("cut-yes").disabled = false;
  }
}

const questions = new Questions({ ask: (path) => ask(path, undefined, LONGEST_MS), make, reason });

// polling

async function look(mine, { connections = true } = {}) {
  const match = $("match").value.trim();
  const channels = `/v1/channels?${new URLSearchParams({ limit: CHANNELS, ...(match && { match }) })}`;
  const [stats, channel, connection, publisher, nodes] = await Promise.all([
    ask("/v1/stats"),
    ask(channels).catch((error) => { if (error.status === 400) return null; throw error; }), // a pattern that is not complete yet
    connections ? ask(`/v1/connections?limit=${shown}`) : null,
    ask("/v1/publishers"),
    ask("/v1/nodes"),
    readFeed(mine),
  ]);
  if (mine !== run) return;
  $("match").setAttribute("aria-invalid", String(channel === null));
  showStats(stats);
  if (channel) showChannels(channel, stats.at);
  if (connection) showConnections(connection);
  showPublishers(publisher);
  showNodes(nodes, { fill, make });
  problem = "";
  fresh.heard(channel ? [] : [$("channel-panel")]);
}

async function follow(mine) {
  for (let count = 0; mine === run; count++) {
    // A hidden tab polls nothing. Connections are polled rarely: to sort 20,000 of them takes the relay 15 ms.
    if (!document.hidden) await look(mine, { connections: count % CONNECTIONS_EVERY === 0 }).catch(failed);
    await new Promise((resolve) => { asking = setTimeout(resolve, EVERY_MS); });
  }
}

function failed(error) {
  if (error.status === 401 || error.status === 403) return leave(error.message);
  problem = error instanceof Refused ? error.message : "";
  fresh.lost();
}

function reason(error) { return error instanceof Refused ? error.message : "The relay does not answer."; }

async function enter(event) {
  event.preventDefault();
  key = $("key").value.trim();
  $("login-error").textContent = "";
  if (!/^[\x21-\x7e]+$/.test(key)) {
    $("login-error").textContent = "A key is a name, a dot and a secret, without spaces.";
    return;
  }
  const mine = ++run;
  try {
    const stats = await ask("/v1/stats");
    if (mine !== run) return;
    $("key").value = "";
    document.body.dataset.view = "open";
    $("leave").hidden = false;
    showStats(stats);
    problem = "";
    fresh.heard();
    $("main").focus({ preventScroll: true });
    void follow(mine);
  } catch (error) {
    key = "";
    $("login-error").textContent = reason(error);
    $("key").select();
  }
}

function leave(why = "") {
  run += 1;
  key = "";
  clearTimeout(asking);
  fresh.forget();
  before = drawn = null;
  seen = new Map();
  sent.clear();
  records = [];
  questions.clear();
  for (const chart of charts) chart.clear();
  for (const id of ["channels", "connections", "publishers", "nodes", "feed", "timeline"]) $(id).replaceChildren();
  for (const id of ["story", "cut"]) if ($(id).open) $(id).close();
  document.body.dataset.view = "login";
  $("leave").hidden = true;
  $("node").textContent = "";
  say("not connected", "idle");
  $("login-error").textContent = why;
  $("key").focus();
}

$("action").append(...ACTIONS.map((name) => make("option", { text: name })));
$("login").addEventListener("submit", enter);
$("leave").addEventListener("click", () => leave());
$("filters").addEventListener("submit", (event) => event.preventDefault());
$("filters").addEventListener("change", filtersChanged);
$("match").addEventListener("change", () => void look(run).catch(failed));
$("older").addEventListener("click", () => void readOlder().catch(failed));
$("more-connections").addEventListener("click", () => { shown = Math.min(1000, shown * 4); void look(run).catch(failed); });
$("story-close").addEventListener("click", () => $("story").close());
$("cut-no").addEventListener("click", () => $("cut").close());
$("cut-yes").addEventListener("click", () => void cut());
document.addEventListener("visibilitychange", () => { if (!document.hidden && key) void look(run).catch(failed); });
$("key").focus();
