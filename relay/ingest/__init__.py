"""Publishing: the routes and the WebSocket that backend teams send their messages to."""
