"""Actors of Ray for the tests of what watches over them; the nodes import them from here."""

import os
import socket
import threading

import ray

from highway.ray.actor import Place


class Idle:
    """An actor that waits for its end."""

    def __init__(self):
        self.ended = threading.Event()

    def where(self):
        return Place(socket.gethostname(), ray.get_runtime_context().get_node_id(), os.getpid())

    def run(self):
        self.ended.wait()
        return ""

    def drain(self, seconds):
        self.ended.set()

    def stop(self):
        self.ended.set()


class Broken(Idle):
    def __init__(self):
        raise ModuleNotFoundError("No module named 'augly'")


class Dying(Idle):
    def where(self):
        threading.Timer(0.2, os._exit, [3]).start()
        return super().where()
