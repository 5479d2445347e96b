// The table of nodes. Each row is what its node said last; the relay that answers knows the others from the engine.

import { ago, short } from "./charts.js";
import { age, verdict } from "./freshness.js";

const TONES = { live: "good", draining: "warn", stopped: "", vanished: "bad", unknown: "warn", "not ready": "warn" };

const $ = (id) => document.getElementById(id);
const rate = (number) => (typeof number === "number" ? `${short(number)}/s` : "–");
const time = (seconds) => (typeof seconds === "number" ? ago(seconds) : "–");

function reasons(node) {
  const said = Object.entries(node.ready ?? {}).filter(([, why]) => why !== null);
  return [...new Set(said.map(([, why]) => why))].map((why) => `${said.filter(([, one]) => one === why).map(([role]) => role).join(", ")}: ${why}`);
}

/** Shows an answer of /v1/nodes. `fill` updates the rows of a table, `make` makes an element. */
export function showNodes(answer, { fill, make }) {
  const { nodes, at } = answer;
  $("node-panel").hidden = nodes.length < 2 && !nodes[0]?.engine; // a relay that runs alone: the bar says it all
  const live = nodes.filter((one) => one.state === "live" || one.state === "draining");
  $("node-count").textContent = live.length === nodes.length ? short(nodes.length) : `${short(live.length)} of ${short(nodes.length)}`;
  const named = (one) => nodes.filter((other) => other.node === one.node).length;
  const sameFormats = new Set(nodes.map((one) => String(one.reads))).size < 2;
  fill($("nodes"), nodes, (one) => one.id,
    () => make("tr", {}, make("th", { scope: "row" }, make("span"), make("small"), make("small", { className: "wide" })),
      make("td", {}, make("span"), make("small", { className: "age" }), make("small", { className: "why" })),
      ...Array.from({ length: 7 }, () => make("td", { className: "n" }))),
    (row, one) => {
      const [who, state, connections, deliveries, publications, delay, lag, generation, resyncs] = row.children;
      const formats = sameFormats ? "" : `reads log format ${[...new Set(one.reads)].join(" to ")}, writes ${one.writes}`;
      who.children[0].textContent = one.node ?? one.id;
      who.title = `Writer of the audit log: ${one.id}`;
      who.children[1].textContent = [named(one) > 1 ? one.id.slice(0, 6) : "", one.release].filter(Boolean).join(" · ");
      who.children[2].textContent = [one.role, formats].filter(Boolean).join(" · ");
      const why = one.state === "live" ? reasons(one) : [];
      const word = why.length ? "not ready" : one.state;
      const warning = !why.length && one.state === "live" && one.engine?.warning;
      if (warning) why.push(warning);
      verdict(state.children[0], word, warning ? "warn" : TONES[word]);
      const isHere = one.state === "live" || one.state === "draining";
      state.children[1].hidden = isHere;
      if (!isHere) age(state.children[1], Math.max(0, at - one.seen_at), ` ago, at ${new Date(one.seen_at * 1000).toLocaleTimeString("en-GB")}`);
      state.children[2].hidden = !why.length;
      state.children[2].textContent = why.join(" ");
      row.dataset.gone = !isHere;
      connections.textContent = isHere ? short(one.connections ?? 0) : "–";
      deliveries.textContent = isHere ? rate(one.deliveries_s) : "–";
      publications.textContent = isHere ? rate(one.publications_s) : "–";
      delay.textContent = isHere ? time(one.delay_s) : "–";
      lag.textContent = isHere ? time(one.loop_lag_s) : "–";
      generation.textContent = one.engine?.generation ?? "–";
      resyncs.textContent = one.engine ? short(one.engine.resyncs) : "–";
    });
}
