"""How often somebody may do something, and when a client that was refused may come back."""
