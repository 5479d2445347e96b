"""The audit log: who got which scope, when and from where, and whether it was used. Anybody can check that it is whole.

`base` is the port. `watch` adds anomalies to events and limits floods of denials (`budget`). `jsonl` is the adapter
that writes JSON lines: `writer` runs on its thread, `logfile` writes the bytes, `files` names the older files.
`chain` has the rules that link the records, `checkpoints` signs them, and `verify` checks both; these are pure.
`recent` and `query` read a log and answer questions about it.
"""
