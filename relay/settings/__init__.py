"""The settings of a relay: relay.toml and RELAY_* variables. `load` reads them; the other modules are sections."""
