"""Runs `highway pack` in this process and prints seconds, processor seconds and peak memory as one line of JSON.

usage: packing.py DIR STORE ENCODING
"""

import json
import os
import sys
import time

from process_tree import cpu_seconds, peak_megabytes

from highway.cli import main

if __name__ == "__main__":
    directory, store, encoding = sys.argv[1:]
    # Its output goes elsewhere: the result is a line of its own.
    answer = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    began, cpu = time.perf_counter(), cpu_seconds()
    failed = main(["pack", directory, store, "--encoding", encoding])
    result = {
        "seconds": time.perf_counter() - began,
        "cpu_seconds": cpu_seconds() - cpu,
        "peak_megabytes": peak_megabytes(),
    }
    if not failed:
        print(json.dumps(result), file=answer, flush=True)
    sys.exit(failed)
