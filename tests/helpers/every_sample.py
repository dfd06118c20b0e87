"""All samples that a pipeline yields."""

import numpy as np

from highway.engine import Pipeline


def samples(*modules):
    """Every sample of all epochs, by epoch and key: its fields as bytes."""
    found = {}
    with Pipeline(list(modules)) as pipeline:
        for _ in range(modules[0].epochs):
            for batch in pipeline:
                for row, key in enumerate(batch.keys):
                    values = {}
                    for name in batch.fields:
                        offsets = batch.offsets if name in batch.ragged else None
                        part = batch.rows_of(name, row) if offsets is not None else batch[name][row]
                        values[name] = np.asarray(part).tobytes()
                    assert (batch.epoch, key) not in found
                    found[batch.epoch, key] = values
        assert pipeline.errors == []
    return found
