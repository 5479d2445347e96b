"""The composition root: the one room that knows all others. It makes a running relay of the settings."""
