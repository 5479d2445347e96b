"""The WebSocket side: who gets in, and the bytes that go out."""
