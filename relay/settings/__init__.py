"""The sections of the settings: what each may hold, and what it means. `relay.config` reads and composes them."""
