"""Highway for TensorFlow: a pipeline as a ``tf.data.Dataset``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from highway.batch import Batch
from highway.engine import Pipeline
from highway.engine.spec import FieldSpec, Spec
from highway.errors import ArgumentError, MissingPackageError

__all__ = ["dataset"]


def dataset(pipeline: Pipeline, *, as_dict: bool = False, spec: Mapping[str, Any] | None = None) -> Any:
    """Return a ``tf.data.Dataset`` of the fields; every iteration is the next epoch of the pipeline.

    Parameters
    ----------
    pipeline : Pipeline
    as_dict : bool
        Whether the elements are dicts by name, instead of tuples in the order of the fields.
    spec : mapping of str to (dtype, shape) or (dtype, shape, ragged), optional
        Dtype and shape of every field, with None for sizes that differ, such as the number of samples, and True for
        ragged fields, whose shape begins with None for the rows of all samples; by default `Pipeline.spec`. Needed
        where that is not known.

    Returns
    -------
    tf.data.Dataset

    Raises
    ------
    ArgumentError
        An argument is not of its type, or the fields are not known before the first batch and `spec` is not given.
        While it is iterated, as an error of TensorFlow: a batch has other fields than the spec, or a field is ragged in
        one of them only.
    MissingPackageError
        TensorFlow is not installed.

    Notes
    -----
    Its cardinality is unknown, since a resumed or skipped part makes an epoch shorter. Where neither happens,
    ``.apply(tf.data.experimental.assert_cardinality(len(pipeline)))`` states it; ``fit`` of Keras warns without it.
    TensorFlow copies every batch. Ragged fields become ``tf.RaggedTensor``, one row for each sample. If the pipeline
    raises, TensorFlow raises an error of its own with the same text.
    """
    try:
        import tensorflow as tf
    except ImportError as error:
        if error.name != "tensorflow":
            raise
        raise MissingPackageError(
            "highway.tensorflow: TensorFlow is not installed: pip install tensorflow"
        ) from None
    if not isinstance(pipeline, Pipeline):
        raise ArgumentError(f"highway.tensorflow.dataset: pipeline is {pipeline!r}; expected a Pipeline")
    known = _known(pipeline.spec if spec is None else spec)
    signature = {name: _signature(tf, name, field) for name, field in known.items()}

    def epoch() -> Iterator[Any]:
        for batch in pipeline:
            found = _tensors(tf, batch, known)
            yield found if as_dict else tuple(found.values())

    structure = signature if as_dict else tuple(signature.values())
    return tf.data.Dataset.from_generator(epoch, output_signature=structure)


def _known(spec: object) -> Spec:
    if not isinstance(spec, Mapping):
        found = "the pipeline does not know its fields" if spec is None else f"spec is {spec!r}"
        raise ArgumentError(f"highway.tensorflow.dataset: {found}; expected {_EXPECTED}")
    known = {}
    for name, given in spec.items():
        try:
            field = given if isinstance(given, FieldSpec) else FieldSpec(*given)
        except TypeError:
            field = FieldSpec()
        if not field.is_known:
            raise ArgumentError(
                f"highway.tensorflow.dataset: field {name!r} is {given!r}; expected {_EXPECTED}"
            )
        known[name] = field
    return known


_EXPECTED = "spec={'images': ('uint8', (None, 224, 224, 3)), ...}, with None for sizes that differ"


def _signature(tf: Any, name: str, field: FieldSpec) -> Any:
    dtype = tf.as_dtype(field.dtype)
    if not field.ragged:
        return tf.TensorSpec(field.shape, dtype, name)
    assert field.shape is not None
    return tf.RaggedTensorSpec(
        (None, None, *field.shape[1:]), dtype, ragged_rank=1, row_splits_dtype=tf.int64
    )


def _tensors(tf: Any, batch: Batch, spec: Spec) -> dict[str, Any]:
    """Return the fields as TensorFlow takes them; raises for those of another kind than the spec says."""
    if tuple(batch.fields) != tuple(spec):
        raise ArgumentError(
            f"highway.tensorflow.dataset: {batch!r} has the fields {', '.join(batch.fields)}; expected those of the "
            f"spec: {', '.join(spec)}"
        )
    found: dict[str, Any] = {}
    for name, array in batch.fields.items():
        ragged = name in batch.ragged
        if ragged != spec[name].ragged:
            kinds = "not ragged", "ragged"
            raise ArgumentError(
                f"highway.tensorflow.dataset: field {name!r} of {batch!r} is {kinds[ragged]}, and {kinds[not ragged]} "
                "in the spec; expected one of them in all batches: name it in ragged= of a DatasetReader, or put "
                "PadRagged(field) at the end of the pipeline"
            )
        found[name] = tf.RaggedTensor.from_row_splits(array, batch.offsets_of(name)) if ragged else array
    return found
