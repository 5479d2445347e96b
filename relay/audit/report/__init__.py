"""The report of `relay audit report`: one HTML page about a span of the log, for an auditor. Pure.

What the page says is found by `relay.audit.index.findings`.
"""
