"""Settings for all tests."""

from hypothesis import settings

# a busy machine says nothing about a property, and a suite that every change waits for is kept short
settings.register_profile("relay", deadline=None, max_examples=60)
settings.load_profile("relay")
