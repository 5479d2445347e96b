"""The demo: a backend, a market and a page around a relay with generated settings.

The parts are those of a real deployment: the backend and the relay are processes of their own, the market is a
publisher with a key, and the page uses the browser client. Two things are different: keys and secrets are in a
temporary folder, which is deleted at the end, and the page may read the audit log.
"""
