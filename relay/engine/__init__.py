"""Redis or Valkey as the engine of several nodes: connections, scripts, and the adapters of the ports."""
