"""An index next to the log, so that questions need not read the whole log. It is made from the log, and proves nothing.

`audit-index/` has one Parquet part for each file of the log, with a row for each line: where the line is, and the
fields that questions need. DuckDB counts them, or finds the lines that a question shows, which are then read from the
log by `relay.audit.query`. DuckDB never opens a file of the log: a half-written last line makes it raise, and with
`ignore_errors` it drops damaged lines silently.
"""
