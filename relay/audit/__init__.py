"""The audit log: who got which scope when, from where, and whether it was used; whole, or provably not.

`base` is the port. `jsonl` is the adapter that writes JSON lines, with `logfile` for the bytes on the disk,
`tail` for going on after a restart and `losses` for what could not be written. `chain` has the rules that
link the records, `verify` checks them and gives a `verdict`; these three are pure.
"""
