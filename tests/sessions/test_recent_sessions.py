"""What is remembered of who asked for tokens, and that it has bounds."""

from relay.sessions.recent_sessions import MAX_SESSIONS, SeenSessions


def test_a_user_s_sessions_are_remembered() -> None:
    """Each once, of that user only."""
    seen = SeenSessions()
    for user, ref in (("a", "1"), ("a", "2"), ("b", "3"), ("a", "1")):
        seen.note(user, ref)
    assert (sorted(seen.of("a")), seen.of("b"), seen.of("c")) == (["1", "2"], ("3",), ())


def test_whoever_was_here_longest_ago_is_forgotten() -> None:
    """Of the users, and of one user's sessions."""
    seen = SeenSessions(max_users=2)
    for user in ("a", "b", "a", "c"):
        seen.note(user, "1")
    assert [bool(seen.of(user)) for user in ("a", "b", "c")] == [True, False, True]
    for number in range(100):
        seen.note("a", str(number))
    assert seen.of("a") == tuple(str(number) for number in range(100 - MAX_SESSIONS, 100))
