"""The state store: used tokens and revocations, which must outlive the process."""
