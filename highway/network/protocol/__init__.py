"""The delivery protocol: pure state machines without sockets or clocks."""
