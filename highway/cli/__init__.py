"""The command `highway`."""

from highway.cli.commands import main

__all__ = ["main"]
