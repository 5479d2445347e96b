"""Hypothesis strategies for frames from clients: a known or unknown type, and members with any JSON value."""

import json

from hypothesis import strategies as st

kinds = st.sampled_from(["auth", "subscribe", "unsubscribe", "ping", "other", "", None, 1])


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)


members = st.dictionaries(st.sampled_from(["id", "channels", "interval_ms", "token", "since", "x"]), values)


objects = st.builds(lambda kind, rest: json.dumps({"type": kind} | rest), kinds, members)
