"""Brokers: they number publications and bring them to every node."""
