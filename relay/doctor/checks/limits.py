"""Checks of limits, lifetimes and the log level, and of this machine's limit of open files."""

from collections.abc import Iterator

from relay.doctor.base import Check, Deployment, Severity

HIGHEST = {
    "tokens_per_session": 600,
    "tokens_per_address": 60_000,
    "logins_per_address": 600,
    "logins_per_account": 600,
    "logins_per_account_and_address": 100,
    "proxy_per_session": 60_000,
    "proxy_per_address": 600_000,
    "connections_per_session": 100,
    "unauthenticated_per_address": 10_000,
    "channels": 1_000_000,
}
"""Values of [limits] above which a limit does not protect any more; rates are a minute. They are 10 to 100 times the
defaults: a company with one address may need more than the default, but not as much as a load test."""
_MINUTES = {"second": 1 / 60, "minute": 1, "hour": 60, "day": 1440}
LONG_COOKIE_S = 3600
LONG_CONNECTION_S = 14_400
LONG_CACHE_S = 2.0
AUTHJS_LIFE_S = 2_592_000
"""Life of a session of Auth.js, if the application's `session.maxAge` does not say something else."""
OTHER_FILES = 500
"""Open files in addition to the sockets of the stream: HTTP connections, the log, the state, the libraries."""


def _high_limit(deployment: Deployment) -> Iterator[str]:
    limits = deployment.settings.limits
    for name, highest in HIGHEST.items():
        value = getattr(limits, name)
        if _a_minute(value) > highest:
            yield f"limits.{name} is {value}"


def _a_minute(value: int | str) -> float:
    if isinstance(value, int):
        return value
    count, _, unit = value.partition("/")
    return int(count) / _MINUTES[unit]


def _long_life(deployment: Deployment) -> Iterator[str]:
    settings = deployment.settings
    if settings.bff.backend is not None and settings.bff.access_max_age_s > LONG_COOKIE_S:
        yield f"bff.access_max_age_s is {settings.bff.access_max_age_s}"
    for name, endpoint in settings.sockets.items():
        if endpoint.max_age_s > LONG_CONNECTION_S:
            yield f"endpoints.{name}.max_age_s is {endpoint.max_age_s}"


def _short_revocations(deployment: Deployment) -> Iterator[str]:
    settings, max_s = deployment.settings, deployment.settings.session.max_s
    lives = {}
    if settings.bff.backend is not None:
        lives["bff.refresh_max_age_s"] = settings.bff.refresh_max_age_s
        lives["bff.access_max_age_s"] = settings.bff.access_max_age_s
    if settings.session.authjs is not None:
        lives["the default of Auth.js"] = AUTHJS_LIFE_S
    for name, life_s in lives.items():
        if life_s > max_s:
            yield f"session.max_s is {max_s}, and {name} is {life_s}"


def _long_cache(deployment: Deployment) -> Iterator[str]:
    upstream = deployment.settings.session.upstream
    if upstream is not None and upstream.cache_s > LONG_CACHE_S:
        yield f"session.upstream.cache_s is {upstream.cache_s:g}"


def _open_files(deployment: Deployment) -> Iterator[str]:
    wanted = deployment.settings.limits.connections + OTHER_FILES
    if deployment.open_files < wanted:
        yield (
            f"a process on this machine may have {deployment.open_files} open files, and limits.connections = "
            f"{deployment.settings.limits.connections} needs {wanted}"
        )


def _debug_log(deployment: Deployment) -> Iterator[str]:
    if deployment.settings.log.level == "debug":
        yield "log.level is debug"


CHECKS = (
    Check(
        name="high-limit",
        severity=Severity.WARNING,
        finds="A limit is so high that it does not protect: "
        + ", ".join(f"{name} above {highest:,}" for name, highest in HIGHEST.items())
        + " (rates a minute).",
        means="One client can use up the capacity of all others.",
        do="Leave it out for the default, or set what one user really needs.",
        run=_high_limit,
    ),
    Check(
        name="open-files",
        severity=Severity.WARNING,
        finds="The hard limit of open files is lower than limits.connections + 500.",
        means="The relay stops accepting connections before its own limit, and can't open its log or its state then.",
        do="Raise it for the relay's process (ulimit -Hn, LimitNOFILE= of systemd), or lower limits.connections.",
        run=_open_files,
    ),
    Check(
        name="long-life",
        severity=Severity.WARNING,
        finds="bff.access_max_age_s is above an hour, or an endpoint's max_age_s above four.",
        means="A user who lost a role keeps the prices for so long, and the thief of a laptop keeps the session.",
        do="Lower it: clients refresh both without the user.",
        run=_long_life,
    ),
    Check(
        name="short-revocations",
        severity=Severity.WARNING,
        finds="session.max_s is shorter than the cookies of the log-in, or than the 30 days of Auth.js's sessions.",
        means="Sessions that live longer are refused. A session that is renewed after its log-out was forgotten works "
        "again.",
        do="Set session.max_s to the longest time for which a log-in can last, refreshes included.",
        run=_short_revocations,
    ),
    Check(
        name="long-cache",
        severity=Severity.NOTE,
        finds="session.upstream.cache_s is above two seconds.",
        means="A session that the backend has ended gets tokens for so long. A log-out at the relay ends it at once.",
        do="Lower it if the backend can answer more requests.",
        run=_long_cache,
    ),
    Check(
        name="debug-log",
        severity=Severity.WARNING,
        finds="log.level is debug.",
        means="The log says more about users than operation needs, and costs time under load. It holds no secrets.",
        do='Set log.level = "info".',
        run=_debug_log,
    ),
)
