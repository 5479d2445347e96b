"""A relay whose audit log hears of no connection: `python -m relay.bench.load.unaudited_relay serve --config FILE`.

`relay bench audit` compares the real relay with it. No setting turns the log off. Tokens are recorded here too.
"""

import runpy
from unittest.mock import patch

from relay.audit.watch import WatchedAuditor

if __name__ == "__main__":
    with patch.object(WatchedAuditor, "note", lambda *_: None):
        runpy.run_module("relay", run_name="__main__")
