"""The composition root: the only room that knows every other one. Settings in, a running relay out."""
