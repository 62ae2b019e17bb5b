"""Captures: bytes to WebSocket connections, one module per step."""
