import { createStream, fetchToken } from "/client/relay-client.js";

import { leave } from "./session.js";

const rows = new Map([...document.querySelectorAll("#prices tr")].map((row) => [`prices.${row.dataset.symbol}`, row]));
const state = document.getElementById("state");
const channels = [...rows.keys()];
const stream = createStream({ getToken: fetchToken({ endpoint: "prices", channels }) });

const TEXTS = { open: "live", waiting: "offline, trying again", stopped: "stopped" };

stream.on("state", (change) => {
  state.textContent = TEXTS[change.state] ?? change.state;
  state.dataset.state = change.state;
  // the log-out in another tab, a revocation, or a session that can't be renewed
  if (change.state === "stopped" && (change.code === 4501 || change.status === 401)) leave();
});

const show = ({ channel, data }) => {
  const row = rows.get(channel);
  row.querySelector(".bid").textContent = data.bid;
  row.querySelector(".ask").textContent = data.ask;
  row.classList.remove("stale");
};

stream.subscribe(channels, {
  onSnapshot: show,
  onUpdate: show,
  onStatus: ({ channel, state }) => rows.get(channel)?.classList.toggle("stale", state === "stale"),
});
