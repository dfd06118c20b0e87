"""ZMQ sockets: addresses, security, and the thread that owns the sockets."""
