// Audit records in plain words: one line for the feed, one step for the story of a token, a connection or a user.

const WHAT = {
  "token.issued": (r) => `was given a token for ${endpoint(r)}${granted(r)}`,
  "token.denied": (r) => `was refused a token${r.relay.asked?.endpoint ? ` for ${r.relay.asked.endpoint}` : ""}`,
  "connect.accepted": (r) => `connected to ${endpoint(r)} and used the token up`,
  "connect.denied": (r) => `was refused at ${endpoint(r)}`,
  "subscribe.accepted": (r) => `subscribed to ${listed(r.relay.channels)}`,
  "subscribe.denied": (r) => `was refused ${listed(r.relay.channels)}`,
  "connection.refreshed": () => "showed a new token and goes on",
  "connection.closed": (r) => `disconnected${delivered(r)}`,
  "session.revoked": () => "was cut off",
  "publish.denied": (r) => `${r.relay.publisher?.id || "somebody"} was refused ${r.relay.count ?? 1} publication(s)`,
  "login.succeeded": () => "logged in",
  "login.failed": () => "could not log in",
  "logout": () => "logged out",
  "key.rotated": () => "signing keys changed",
  "operator.action": (r) => `operator ${r.relay.operator?.id || "without a key"} called ${r.relay.method ?? ""} ${r.url?.path ?? ""}`,
  "audit.read": (r) => `operator ${r.relay.operator?.id || "?"} read the audit log${sought(r)}`,
  "audit.gap": (r) => `events could not be recorded: ${counted(r.relay.lost)}`,
  "denials.aggregated": (r) => `${r.relay.count ?? "many"} more refusals were counted, not recorded one by one`,
};

/** Every action, for the filter. */
export const ACTIONS = Object.keys(WHAT);

function endpoint(record) {
  return record.relay.endpoint || record.url?.path || record.relay.asked?.endpoint || record.relay.token?.aud || "the stream";
}

function listed(names) {
  if (!Array.isArray(names) || !names.length) return "nothing";
  return names.length > 4 ? `${names.slice(0, 3).join(", ")} and ${names.length - 3} more` : names.join(", ");
}

function granted(record) {
  const channels = record.relay.token?.channels;
  return Array.isArray(channels) && channels.length ? ` (${listed(channels)})` : "";
}

function sought(record) {
  const parts = Object.entries(record.relay.sought ?? {}).map(([name, value]) => `${name} ${value}`);
  return parts.length ? `: ${parts.join(", ")}` : "";
}

function counted(counts) {
  return Object.entries(counts ?? {}).map(([name, count]) => `${count} ${name}`).join(", ") || "torn bytes";
}

function delivered(record) {
  const { duration_ms: ms, messages_out: messages, close_code: code, initiator } = record.relay.connection ?? {};
  const parts = [];
  if (Number.isFinite(ms)) parts.push(`after ${(ms / 1000).toFixed(1)} s`);
  if (Number.isFinite(messages)) parts.push(`${messages.toLocaleString("en")} messages`);
  if (code) parts.push(`code ${code}${initiator ? ` by the ${initiator}` : ""}`);
  return parts.length ? `: ${parts.join(", ")}` : "";
}

/** One record as a sentence without its subject. */
export function sentence(record) {
  const say = WHAT[record.event.action];
  return say ? say({ ...record, relay: record.relay ?? {} }) : record.event.action;
}

/** Who a record is about, for the eye. */
export function subject(record) {
  return record.user?.id ?? record.client?.ip ?? "";
}

/** What a record can be asked about: the most exact thing first. */
export function handles(record) {
  const relay = record.relay ?? {};
  return [
    ["token", relay.token?.jti],
    ["connection", relay.connection?.id],
    ["session", relay.session?.ref],
    ["user", record.user?.id],
  ].filter(([, name]) => typeof name === "string" && name);
}

/** The facts of a record that its sentence leaves out. */
export function facts(record) {
  const relay = record.relay ?? {};
  return [
    ["reason", record.event.reason],
    ["detail", typeof relay.detail === "string" ? relay.detail : undefined],
    ["marks", relay.anomalies?.join(", ")],
    ["address", record.client?.ip],
    ["origin", relay.origin],
    ["token", relay.token?.jti],
    ["connection", relay.connection?.id],
    ["record", relay.chain?.seq],
  ].filter(([, value]) => value !== undefined && value !== "" && value !== null);
}
