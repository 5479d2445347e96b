"""What a relay does, in numbers: read from its parts when somebody asks, for Prometheus and for the ops page alike."""
