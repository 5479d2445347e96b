"""The test files that take more than 20 seconds, the longest first. The suite starts with them.

`python -m pytest --durations=0 FILE` measures one. A long file that is not named here may start last, and then the
suite ends later.
"""

LONGEST_FIRST = (
    "tests/cli/test_bench_commands.py",
    "tests/browser/test_client_real_relay.py",
    "tests/examples/test_nextjs.py",
    "tests/browser/test_client_file.py",
    "tests/audit/query/test_questions.py",
    "tests/browser/test_ops_page.py",
    "tests/browser/test_page.py",
    "tests/hardening/test_canaries_inside.py",
    "tests/browser/test_react_readme.py",
    "tests/audit/index/test_index.py",
    "tests/audit/index/test_sql.py",
    "tests/cli/test_publish.py",
    "tests/engine/test_workers.py",
    "tests/engine/test_faults.py",
    "tests/browser/test_example_react.py",
    "tests/browser/test_ops_freshness.py",
    "tests/hardening/test_floods.py",
    "tests/audit/index/test_answers.py",
    "tests/deploy/test_services.py",
    "tests/browser/test_demo_freshness.py",
    "tests/examples/test_pages_in_a_browser.py",
    "tests/stream/test_connections.py",
    "tests/hardening/test_reconnect_storm.py",
    "tests/deploy/test_headers.py",
    "tests/audit/query/test_real_log.py",
    "tests/engine/test_restarts.py",
)
