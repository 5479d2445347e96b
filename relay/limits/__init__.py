"""Rate limits: of requests, log-ins and publishers, and how long a refused client has to wait."""
