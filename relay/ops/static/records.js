// Audit records as the page shows them. Their sentences come from the relay, the same as in `relay audit why`.

/** Every action, for the filter. */
export const ACTIONS = [
  "token.issued", "token.denied", "connect.accepted", "connect.denied", "subscribe.accepted", "subscribe.denied",
  "connection.refreshed", "connection.channels", "connection.closed", "session.revoked",
  "session.refreshed", "session.refresh_denied", "publish.denied", "proxy.denied", "request.denied", "login.succeeded", "login.failed",
  "logout", "key.rotated", "reload.succeeded", "reload.failed", "operator.action", "denials.aggregated", "subscriptions.aggregated", "publish.summary", "audit.read", "audit.checkpoint", "audit.gap",
];

/** The user or the address of a record. */
export function subject(record) {
  return record.user?.id ?? record.client?.ip ?? "";
}

/** The ids by which a timeline can be requested, the most exact one first. */
export function handles(record) {
  const relay = record.relay ?? {};
  return [
    ["token", relay.token?.jti],
    ["connection", relay.connection?.id],
    ["session", relay.session?.ref],
    ["user", record.user?.id],
  ].filter(([, name]) => typeof name === "string" && name);
}

/** The facts of a step that its sentence leaves out. */
export function facts(step) {
  return [
    ["reason", step.reason],
    ["anomalies", step.marks.join(", ")],
    ["address", step.address],
    ["origin", step.origin],
    ["token", step.token],
    ["connection", step.connection],
    ["record", step.number],
  ].filter(([, value]) => value);
}
