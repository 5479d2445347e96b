"""The audit log: who got which scope when, from where, and whether it was used; whole, or provably not.

`base` is the port. `jsonl` is the adapter that writes JSON lines: `writing` is its thread, `logfile` the bytes on the
disk, `files` the older files, `tail` how to go on after a restart, `losses` what could not be written. `chain` has the
rules that link the records, `checkpoints` how they are signed, `verify` checks both and gives a `verdict`; these
are pure.
"""
