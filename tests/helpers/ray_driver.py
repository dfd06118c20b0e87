"""A program with a pipeline on Ray, for tests that kill it: ``ray_driver.py ADDRESS DATA JSON``.

It prints a line of JSON for each batch, with the state after it, and runs until it has all or is killed.
"""

import json
import sys
from pathlib import Path

import ray
from ray_pipelines import Failing, Paced, arrays, told

from highway.engine import Pipeline
from highway.ray import Workers


def main():
    address, data, options = sys.argv[1:]
    options = json.loads(options)
    ray.init(address=address, log_to_driver=False)
    modules = arrays(Path(data), epochs=options["epochs"], shard=tuple(options.get("shard", (0, 1))))
    modules.append(Paced(options.get("pace", 0)))
    if "failing" in options:
        modules.append(Failing(options["failing"]))
    with Pipeline(modules, on=Workers(2)) as pipeline:
        for batch in pipeline.forever():
            ((epoch, _, indices, sha),) = told([batch])
            line = {
                "epoch": epoch,
                "indices": indices,
                "sha": sha,
                "state": pipeline.state_dict() if options.get("states", True) else None,
                "processes": [place.process for place in pipeline.on.places],
            }
            print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
