"""Messages: msgpack headers and array frames."""
