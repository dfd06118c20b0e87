"""A rank of a training that may lose ranks: elastic_rank.py RANK WORLD BATCH_SIZE STATE. It does as it is told.

"take" takes a batch and prints its indices; "commit" prints the state after it; "end" ends.
"""

import json
import sys

from highway.engine import Pipeline
from highway.errors import EndOfData
from highway.modules import Noise


def main(rank: int, world: int, batch_size: int, state: dict | None) -> None:
    reader = Noise(batch_size, 4, size=101, epochs=2, seed=5, shard=(rank, world), workers=1)
    with Pipeline([reader]) as pipeline:
        if state is not None:
            pipeline.load_state_dict(state)
        for line in sys.stdin:
            if line == "end\n":
                return
            if line == "take\n":
                try:
                    batch = pipeline.dequeue(timeout=60)
                except EndOfData:
                    return
                print(json.dumps([batch.epoch, batch.indices.tolist()]), flush=True)
            else:
                pipeline.commit()
                print(json.dumps(pipeline.state_dict()), flush=True)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:4]), json.loads(sys.argv[4]))
