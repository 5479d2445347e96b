"""The test files that take more than 20 seconds, the longest first. The suite starts with them.

`python -m pytest --durations=0 FILE` measures one. A long file that is not named here may start last, and then the
suite ends later.
"""

LONGEST_FIRST = (
    "tests/browser/test_client_real_relay.py",
    "tests/cli/test_bench_commands.py",
    "tests/examples/test_nextjs.py",
    "tests/browser/test_client_file.py",
    "tests/browser/test_ops_page.py",
    "tests/browser/test_ops_freshness.py",
    "tests/browser/test_example_react.py",
    "tests/engine/test_faults.py",
    "tests/engine/test_workers.py",
    "tests/browser/test_react_readme.py",
    "tests/server/test_reload.py",
    "tests/browser/test_page.py",
    "tests/hardening/test_reconnect_storm.py",
    "tests/browser/test_demo_freshness.py",
    "tests/audit/query/test_questions.py",
    "tests/stream/test_connections.py",
    "tests/cli/test_publish.py",
    "tests/hardening/test_canaries_inside.py",
    "tests/hardening/test_floods.py",
    "tests/engine/test_restarts.py",
)
