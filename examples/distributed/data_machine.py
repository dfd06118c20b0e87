"""A data machine: reads and decodes pictures, and sends batches to the workers that request them.

    python examples/distributed/data_machine.py demo-output/photos --listen tcp://127.0.0.1:5555

With several data machines, each sends one stream: --stream 0 2 on the first, --stream 1 2 on the second.
"""

import argparse
import sys

from highway import HighwayError
from highway.engine import Pipeline
from highway.modules import ImageFileReader, ZMQSink


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data_dir", help="folder with one sub-folder of pictures per class")
    parser.add_argument("--listen", default="tcp://127.0.0.1:5555", metavar="ADDR")
    parser.add_argument("--stream", type=int, nargs=2, default=(0, 1), metavar=("I", "N"))
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--epochs", type=int, default=15)
    options = parser.parse_args()
    try:
        reader = ImageFileReader(
            options.data_dir,
            options.batch_size,
            (240, 320),
            epochs=options.epochs,
            shard=tuple(options.stream),
        )
        sink = ZMQSink(options.listen, stream=tuple(options.stream))
        with Pipeline([reader, sink]) as pipeline:
            print(f"{reader.size} pictures, listening at {sink.address}", flush=True)
            pipeline.wait()
    except (HighwayError, OSError) as error:
        sys.exit(f"data_machine: {error}")
    print("all batches sent")


if __name__ == "__main__":
    main()
