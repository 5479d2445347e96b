"""Settings for all tests."""

import signal

from hypothesis import settings

# a busy machine says nothing about a property, and a suite that every change waits for is kept short
settings.register_profile("relay", deadline=None, max_examples=60)
settings.load_profile("relay")

# whoever starts the suite in the background of a script leaves Ctrl-C ignored, and the programs that the tests start
# and interrupt would inherit it (POSIX.1-2017, XCU §2.11)
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
