"""A worker: receives batches from data machines, augments them and sends them downstream. Start as many as needed.

    python examples/distributed/worker.py --data tcp://127.0.0.1:5555 --train tcp://127.0.0.1:5556

You can kill a worker at any time: the other workers take over its batches.
"""

import argparse
import sys

from highway import HighwayError
from highway.engine import Pipeline
from highway.modules import Augmentations, ZMQSink, ZMQSource
from highway.transforms import FlipX, Normalize


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", nargs="+", default=["tcp://127.0.0.1:5555"], metavar="ADDR")
    parser.add_argument("--train", default="tcp://127.0.0.1:5556", metavar="ADDR")
    parser.add_argument("--timeout", type=float, help="end after this many seconds without a data machine")
    options = parser.parse_args()
    try:
        modules = [
            ZMQSource(options.data, timeout=options.timeout),
            Augmentations([FlipX(), Normalize()]),
            ZMQSink(options.train, bind=False),
        ]
        with Pipeline(modules) as pipeline:
            print(f"working for {options.train}", flush=True)
            pipeline.wait()
    except (HighwayError, OSError) as error:
        sys.exit(f"worker: {error}")
    print("the data machines have ended")


if __name__ == "__main__":
    main()
