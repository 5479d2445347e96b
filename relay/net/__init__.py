"""What all listeners share below HTTP: addresses, sockets, TLS, admission, unauthenticated connections, HTTP calls."""
