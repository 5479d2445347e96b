"""Session verifiers: from a credential to its user, by one port (`relay.sessions.base`)."""
