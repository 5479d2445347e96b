"""What the HTTP listeners share: the server, bounds, CSRF checks, cookies, bodies and the form of answers."""
