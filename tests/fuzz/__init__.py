"""Parsers fed with bytes that nobody would send: nothing may raise anything but what is declared."""
