"""The sections of the settings: what each may hold, and what it means. `load` reads and composes them."""
