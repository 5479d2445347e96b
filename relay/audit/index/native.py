"""DuckDB without the Python modules around it, which have nothing for questions and take long to import."""

try:
    import _duckdb as duckdb
except ImportError:  # of a release that has it elsewhere; or DuckDB is not installed
    import duckdb  # type: ignore[no-redef]  # the same

__all__ = ["duckdb"]
