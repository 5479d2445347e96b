"""The index needs DuckDB, which is an extra."""

import os
from importlib.util import find_spec

collect_ignore_glob = [] if find_spec("duckdb") or os.environ.get("CI") == "true" else ["test_*.py"]
"""Without DuckDB nothing here can run; where everything must run, its absence is an error."""
