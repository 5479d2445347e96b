"""The stream listener: the gate, connections and their life, the registry, the fan-out loop, heartbeat, drain."""
