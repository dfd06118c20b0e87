"""Delivery between machines: the protocol, its frames, and who may take part; used by `highway.modules.network`."""
