"""Prints the memory of Highway after every epoch as JSON; imports little else, since imports count too.

usage: resident.py DIR JOB THREADS EPOCHS HOLD STEP
"""

import sys
import time

from highway_pipeline import batches
from jobs import JOBS, list_files
from process_tree import peak_megabytes, resident_megabytes


def measure(directory: str, job: str, threads: int, epochs: int, hold: int, step: float) -> dict[str, object]:
    """Return the RSS in 10**6 bytes: before the first batch ("start"), after each epoch, and its peak."""
    files = len(list_files(directory)[0])
    held: list[object] = []
    start = resident_megabytes()
    after: list[float] = []
    made = batches(directory, JOBS[job], threads, "", 0)
    samples = 0
    while len(after) < epochs:
        images, labels = next(made)
        held.append((images, labels))
        del held[: len(held) - hold]
        samples += len(images)
        time.sleep(step)
        if samples >= files * (len(after) + 1):
            after.append(resident_megabytes())
    peak = peak_megabytes()
    made.close()
    return {"start": start, "epochs": after, "peak": peak}


if __name__ == "__main__":
    directory, job, threads, epochs, hold, step = sys.argv[1:]
    found = measure(directory, job, int(threads), int(epochs), int(hold), float(step))
    import json  # Imported last, so that it does not count.

    print(json.dumps(found))
