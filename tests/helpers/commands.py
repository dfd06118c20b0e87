"""The command `highway`, in this process and in others."""

import os
import subprocess
import sys
from pathlib import Path

import highway
from highway.cli import main

LIMIT = 60


def highway_command(*arguments, **options):
    """Start the command in a process of its own."""
    code = (
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "from highway.cli import main; sys.exit(main())"
    )
    package = str(Path(highway.__file__).parents[1])
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", code, *map(str, arguments)],
        env=os.environ | {"PYTHONPATH": package},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def run(capsys, *arguments):
    """Run the command here; its exit code, output and errors."""
    code = main([str(argument) for argument in arguments])
    output, errors = capsys.readouterr()
    return code, output, errors
