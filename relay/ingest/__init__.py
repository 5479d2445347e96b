"""Publishing: a backend team's key, its channels, and what it sends."""
