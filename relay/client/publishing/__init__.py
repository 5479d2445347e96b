"""The parts of a `Publisher`: encoded messages, the queue that holds them in order, and two transports that empty it.

`http_transport` sends requests; `websocket_transport` opens one `ingest_connection` after the other.
"""
