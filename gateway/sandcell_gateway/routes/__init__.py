"""The HTTP and WebSocket interface: parse, call one method, shape the answer."""
