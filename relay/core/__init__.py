"""The pure core: the rules of tokens, channels and the fan-out. It has no socket, clock, event loop or randomness."""
