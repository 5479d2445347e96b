"""Limits and times that are far from what they protect against, and whether this machine can hold what they allow."""

from collections.abc import Iterator

from relay.doctor.base import Check, Deployment, Severity

HIGHEST = {
    "tokens_per_session": 600,
    "tokens_per_address": 60_000,
    "logins_per_address": 600,
    "logins_per_account": 600,
    "logins_per_account_and_address": 100,
    "connections_per_session": 100,
    "unauthenticated_per_address": 10_000,
    "channels": 1_000_000,
}
"""What keys of [limits] may have before they protect from nothing; rates a minute. Ten to a hundred times the defaults,
so that a company behind one address, or a load test's leftovers, can be told apart."""
_MINUTES = {"second": 1 / 60, "minute": 1, "hour": 60, "day": 1440}
LONG_COOKIE_S = 3600
LONG_CONNECTION_S = 14_400
LONG_CACHE_S = 2.0
OTHER_FILES = 500
"""Open files beside the sockets of the stream: HTTP connections, the log, the state, the libraries."""


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


def _long_cache(deployment: Deployment) -> Iterator[str]:
    upstream = deployment.settings.session.upstream
    if upstream is not None and upstream.cache_s > LONG_CACHE_S:
        yield f"session.upstream.cache_s is {upstream.cache_s:g}"


def _open_files(deployment: Deployment) -> Iterator[str]:
    wanted = deployment.settings.limits.connections + OTHER_FILES
    if deployment.open_files < wanted:
        yield (
            f"a process here may have {deployment.open_files} open files, and limits.connections = "
            f"{deployment.settings.limits.connections} needs {wanted}"
        )


def _debug_log(deployment: Deployment) -> Iterator[str]:
    if deployment.settings.log.level == "debug":
        yield "log.level is debug"


CHECKS = (
    Check(
        name="high-limit",
        severity=Severity.WARNING,
        finds="A limit is so high that it stops nobody: "
        + ", ".join(f"{name} above {highest:,}" for name, highest in HIGHEST.items())
        + " (rates a minute).",
        means="One client can take what all the others need.",
        do="Leave it out for the default, or name what one user really does.",
        look=_high_limit,
    ),
    Check(
        name="open-files",
        severity=Severity.WARNING,
        finds="The hard limit of open files is lower than limits.connections and 500 more.",
        means="The relay stops accepting before its own limit, and then can't open its log or its state either.",
        do="Raise it for the relay's process (ulimit -Hn, LimitNOFILE= of systemd), or lower limits.connections.",
        look=_open_files,
    ),
    Check(
        name="long-life",
        severity=Severity.WARNING,
        finds="bff.access_max_age_s is above an hour, or an endpoint's max_age_s above four.",
        means="Who lost a role, or a laptop, keeps the session or the prices for so long.",
        do="Shorten it: clients refresh both by themselves.",
        look=_long_life,
    ),
    Check(
        name="long-cache",
        severity=Severity.NOTE,
        finds="session.upstream.cache_s is above two seconds.",
        means="A session that the backend ended by itself still gets tokens for so long. Log-out here ends it at once.",
        do="Lower it where the backend can answer more often.",
        look=_long_cache,
    ),
    Check(
        name="debug-log",
        severity=Severity.WARNING,
        finds="log.level is debug.",
        means="It says more about users than operating needs, and costs time under load. Secrets stay out of it.",
        do='Set log.level = "info".',
        look=_debug_log,
    ),
)
