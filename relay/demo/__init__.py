"""The demo: a backend, a market and a page around a relay with embedded defaults.

Everything runs as it would in earnest: the backend and the relay are processes of their own, the market is a
publisher with a key, the page uses the browser client. Only two things are not for a deployment: the keys and
secrets live in a temporary folder and die with the demo, and the page may read the audit log.
"""
