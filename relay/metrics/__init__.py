"""The numbers of a running relay: read from its parts when Prometheus or the ops page asks."""
