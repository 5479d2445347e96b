"""Listening sockets: the limit of open files."""

import resource

from relay.net.sockets import raise_file_limit


def test_as_many_files_may_be_open_as_the_system_allows() -> None:
    """Thousands of connections need more files than most shells allow."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(before[0], 512), before[1]))
    try:
        raise_file_limit()
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (before[1], before[1])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
