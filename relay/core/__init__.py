"""The pure core: the rules of tokens, channels and the fan-out, without socket, clock, loop or randomness."""
