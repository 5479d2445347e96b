"""The operators' routes of the internal listener, the keys that open them, and the ops page."""
