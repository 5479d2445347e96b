"""A realtime relay with scoped tokens: prices to thousands of browsers, and no access token in any of them.

The two journeys to read the code by:

A token. `relay.issuer` answers POST /auth/ws-token: it checks where the request came from (`relay.web.csrf`),
asks `relay.sessions` who is behind the cookie, cuts what was asked for to what the roles grant
(`relay.issuer.policy`), mints (`relay.core.tokens`) and records it (`relay.audit`). The browser connects with
it; `relay.stream.gate` checks the connection and uses the token up (`relay.state`).

A tick. A backend publishes to `relay.ingest`; `relay.broker` numbers the tick and hands it to the hub of every
node (`relay.core.hub`), which encodes it once and writes the same bytes to every subscriber that can take them
(`relay.stream`).

What else is where: `relay.core` is pure (no socket, clock, loop); `relay.server` makes the process out of the rooms.
"""

__version__ = "0.1.0"
