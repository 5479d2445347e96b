"""The recent sessions of each user, and their bounds."""

from relay.sessions.recent_sessions import MAX_SESSIONS, RecentSessions


def test_a_user_s_sessions_are_remembered() -> None:
    """Each once, of that user only."""
    recent = RecentSessions()
    for user, ref in (("a", "1"), ("a", "2"), ("b", "3"), ("a", "1")):
        recent.add(user, ref)
    assert (sorted(recent.of("a")), recent.of("b"), recent.of("c")) == (["1", "2"], ("3",), ())


def test_the_least_recent_is_dropped_first() -> None:
    """So it is with users, and with the sessions of one user."""
    recent = RecentSessions(max_users=2)
    for user in ("a", "b", "a", "c"):
        recent.add(user, "1")
    assert [bool(recent.of(user)) for user in ("a", "b", "c")] == [True, False, True]
    for number in range(100):
        recent.add("a", str(number))
    assert recent.of("a") == tuple(str(number) for number in range(100 - MAX_SESSIONS, 100))


def test_the_newest_log_in_of_a_user_is_remembered() -> None:
    """With a session's id or without one, and also if an older session comes after it."""
    recent = RecentSessions()
    for user, ref, at in (("a", "", 5.0), ("a", "1", 9.0), ("a", "1", 7.0), ("b", "", 3.0), ("a", "", 2.0)):
        recent.add(user, ref, logged_in_at=at)
    assert [recent.newest_login(user) for user in ("a", "b", "c")] == [9.0, 3.0, 0.0]
    assert (recent.of("a"), recent.of("b")) == (("1",), ())


def test_a_session_is_as_old_as_its_first_sight() -> None:
    """Sessions that were first seen after a time are left out, and a later sight makes none younger."""
    recent = RecentSessions()
    for ref, now in (("1", 10.0), ("2", 20.0), ("1", 30.0)):
        recent.add("a", ref, now=now)
    assert recent.of("a", 15.0) == ("1",)
    assert recent.of("a", 20.0) == ("2", "1")
