"""The checks of `relay doctor`, one file a subject."""
