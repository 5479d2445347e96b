"""Run by Python as it starts, if this folder is in PYTHONPATH: no process gets another priority than its parent.

A relay's process for audit questions gets only the CPU that nothing else wants. Tests that run side by side want all.
"""

import os

vars(os).update(dict.fromkeys(("setpriority", "sched_setscheduler"), lambda *_: None))
