// Audit records as the page shows them. What they say in words comes from the relay, which tells it as `relay audit why` does.

/** Every action, for the filter. */
export const ACTIONS = [
  "token.issued", "token.denied", "connect.accepted", "connect.denied", "subscribe.accepted", "subscribe.denied",
  "connection.refreshed", "connection.closed", "session.revoked", "publish.denied", "login.succeeded", "login.failed",
  "logout", "key.rotated", "operator.action", "denials.aggregated", "audit.read", "audit.checkpoint", "audit.gap",
];

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

/** The facts of a story's step that its words leave out. */
export function facts(step) {
  return [
    ["reason", step.reason],
    ["marks", step.marks.join(", ")],
    ["address", step.address],
    ["origin", step.origin],
    ["token", step.token],
    ["connection", step.connection],
    ["record", step.number],
  ].filter(([, value]) => value);
}
