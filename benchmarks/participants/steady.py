"""Takes batches of one participant without reading them, for profiles that show nothing else.

Prints the word "ready" after the warm-up, takes batches until its standard input ends, and prints one line of
JSON: images, batches, seconds, user_seconds, system_seconds of this process; and with --probe LIBRARY, which is
gil_probe.c compiled, gil_questions and gil_waits.
"""

import argparse
import contextlib
import ctypes
import importlib
import json
import resource
import sys
import threading
import time

from jobs import JOBS

# Seconds between two requests, and the longest time that a free GIL takes.
PROBE_INTERVAL, PROBE_IDLE = 1e-3, 3e-6


class Probe:
    """Requests the GIL at random times and counts the waits."""

    def __init__(self, library: str):
        self.library = ctypes.CDLL(library)
        self.library.probe_start.argtypes = [ctypes.c_double, ctypes.c_double]

    def start(self) -> None:
        if self.library.probe_start(PROBE_INTERVAL, PROBE_IDLE):
            raise RuntimeError("the thread that requests the GIL did not start")

    def stop(self) -> dict[str, int]:
        questions, waits = ctypes.c_long(), ctypes.c_long()
        self.library.probe_stop(ctypes.byref(questions), ctypes.byref(waits))
        return {"gil_questions": questions.value, "gil_waits": waits.value}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("module", help="module of this folder, for instance highway_pipeline")
    parser.add_argument("--job", choices=sorted(JOBS), required=True)
    parser.add_argument("--dir", required=True, help="folder of class folders of JPEGs")
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--variant", default="")
    parser.add_argument("--warmup", type=float, default=1.0, help="seconds (default: %(default)s)")
    parser.add_argument("--probe", metavar="LIBRARY", help="gil_probe.c, compiled")
    options = parser.parse_args()

    ended = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), ended.set()), daemon=True).start()
    probe = Probe(options.probe) if options.probe else None
    module = importlib.import_module(options.module)
    made = module.batches(options.dir, JOBS[options.job], options.threads, options.variant, 0)
    with contextlib.closing(made):
        warm = time.perf_counter() + options.warmup
        next(made)
        while time.perf_counter() < warm:
            next(made)
        print("ready", flush=True)
        if probe:
            probe.start()
        images = batches = 0
        before = resource.getrusage(resource.RUSAGE_SELF)
        began = time.perf_counter()
        while not ended.is_set() or not batches:
            taken, _ = next(made)
            images += len(taken)
            batches += 1
            del taken
        seconds = time.perf_counter() - began
        after = resource.getrusage(resource.RUSAGE_SELF)
        result = {
            "images": images,
            "batches": batches,
            "seconds": seconds,
            "user_seconds": after.ru_utime - before.ru_utime,
            "system_seconds": after.ru_stime - before.ru_stime,
        }
        if probe:
            result |= probe.stop()
    print(json.dumps(result))


if __name__ == "__main__":
    main()
