"""Times one epoch of a participant, from its start to the last image, and prints one line of JSON.

The line has images, seconds, first_batch_seconds and cpu_seconds of this process; importing the participant is not
timed.
"""

import argparse
import contextlib
import importlib
import json
import time

from jobs import JOBS, list_files


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("module", help="module of this folder, for instance highway_pipeline")
    parser.add_argument("--job", choices=sorted(JOBS), required=True)
    parser.add_argument("--dir", required=True, help="folder of class folders of JPEGs")
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--variant", default="")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()

    module = importlib.import_module(options.module)
    files = len(list_files(options.dir)[0])
    began, cpu = time.perf_counter(), time.process_time()
    made = module.batches(options.dir, JOBS[options.job], options.threads, options.variant, options.seed)
    with contextlib.closing(made):
        images, first = 0, None
        while images < files:
            taken, _ = next(made)
            first = first or time.perf_counter() - began
            images += len(taken)
        result = {
            "images": images,
            "seconds": time.perf_counter() - began,
            "first_batch_seconds": first,
            "cpu_seconds": time.process_time() - cpu,
        }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
