"""Normalize, Rescale and ToFloat of fields that are not images; transforms of batches without images."""

import numpy as np
import pytest

from highway.batch import Batch
from highway.engine import Pipeline
from highway.errors import ArgumentError, FieldError
from highway.modules import ArrayReader, Augmentations
from highway.transforms import FlipX, Invert, Normalize, OneOf, Pad, RandomApply, Rescale, Sequential, ToFloat

N = 6


def table(dtype=np.float32, shape=(N, 4)):
    return np.random.default_rng(2).integers(0, 200, shape).astype(dtype)


def after(steps, **fields):
    return Augmentations(steps).process(Batch(fields, seq=0))


@pytest.mark.parametrize("dtype", ["?", "u1", "i1", "<i2", ">i4", "i8", "u8", "f2", "f4", ">f4", "f8"])
@pytest.mark.parametrize("shape", [(N,), (N, 4), (N, 5, 4), (N, 2, 3, 4)])
def test_any_numbers_and_any_number_of_dimensions(dtype, shape):
    x = table(dtype, shape)
    for step, expected in (
        (Normalize(100, 50, field="x"), (x.astype(float) - 100) / 50),
        (Rescale(0.25, -3, field="x"), x.astype(float) * 0.25 - 3),
    ):
        found = after([step], x=x, y=np.arange(N))
        assert found.x.dtype == np.float32
        assert found.x.shape == shape
        np.testing.assert_allclose(found.x, expected, atol=1e-5)
        assert found.y.tolist() == list(range(N))


def test_a_number_for_each_value_of_the_last_axis():
    x, mean, std = table(shape=(N, 5, 4)), [100, 50, 0, -7], [1, 2, 4, 8]
    found = after([Normalize(mean, std, field="x", dtype="float16")], x=x)
    assert found.x.dtype == np.float16
    np.testing.assert_allclose(found.x, (x - mean) / std, rtol=1e-3)


def test_large_numbers_keep_their_digits():
    times = np.array([1_700_000_000, 1_700_000_001, 1_700_000_003])
    found = after([Normalize(1_700_000_000, 1, field="times")], times=times)
    assert found.times.tolist() == [0, 1, 3]


def test_to_float_of_fields():
    x = table(np.uint8)
    np.testing.assert_allclose(after([ToFloat(field="x")], x=x).x, x / 255, rtol=1e-6)
    assert (after([ToFloat(field="x")], x=x / 7).x == (x / 7).astype(np.float32)).all()
    assert after([ToFloat(field="x")], x=x > 9).x.tolist() == (x > 9).tolist()
    with pytest.raises(ArgumentError, match=r"ToFloat: the field 'x' is int32; .*Rescale"):
        after([ToFloat(field="x")], x=x.astype(np.int32))


def test_the_arrays_of_the_reader_do_not_change():
    x = table()
    before = x.copy()
    after([Normalize(1, 2, field="x")], x=x)
    assert (x == before).all()


def test_fields_among_transforms_of_images():
    images, x = table(np.uint8, (N, 8, 8, 3)), table()
    found = after([Normalize(3, 4, field="x"), FlipX(), Normalize()], images=images, x=x)
    # The first step has a random position of its own.
    alone = Augmentations([FlipX(), Normalize()]).process(Batch({"images": images}, seq=0, applied=1))
    assert (found.images == alone.images).all()
    np.testing.assert_allclose(found.x, (x - 3) / 4, rtol=1e-6)


def test_flips_after_the_normalized_field_are_fused_or_not_with_the_same_bits():
    images, x = table(np.uint8, (N, 8, 8, 3)), table()
    steps = [FlipX(), Normalize(), Normalize(1, 2, field="x")]
    with Pipeline(
        [ArrayReader(images=images, x=x, batch_size=N, epochs=1), Augmentations(steps)]
    ) as pipeline:
        (found,) = list(pipeline)
    plain = Augmentations(steps).process(
        Batch({"images": images[found.indices], "x": x[found.indices]}, indices=found.indices, applied=1)
    )
    assert (found.images == plain.images).all()
    assert (found.x == plain.x).all()


def test_images_stay_bytes_for_the_next_augmentations():
    images, x = table(np.uint8, (N, 8, 8, 3)), table()
    stages = [Augmentations([Normalize(3, 4, field="x")]), Augmentations([FlipX(), Invert()])]
    with Pipeline([ArrayReader(images=images, x=x, batch_size=N, epochs=1), *stages]) as pipeline:
        (found,) = list(pipeline)
    assert found.images.dtype == np.uint8
    np.testing.assert_allclose(found.x, (x[found.indices] - 3) / 4, rtol=1e-6)
    with pytest.raises(ArgumentError, match="fill is 300, for images of uint8"):
        Pipeline(
            [ArrayReader(images=images, x=x, batch_size=N), stages[0], Augmentations([Pad(1, fill=300)])]
        )


def test_a_field_is_converted_after_images_in_bfloat16():
    images, x = table(np.uint8, (N, 8, 8, 3)), table()
    stages = [Augmentations([ToFloat(dtype="bfloat16")]), Augmentations([Normalize(3, 4, field="x")])]
    with Pipeline([ArrayReader(images=images, x=x, batch_size=N, epochs=1), *stages]) as pipeline:
        (found,) = list(pipeline)
    assert found.images.dtype == np.uint16
    np.testing.assert_allclose(found.x, (x[found.indices] - 3) / 4, rtol=1e-6)


def test_results_beyond_the_range_are_infinite_without_a_warning():
    x = np.array([1e60, 1e6, -1e6, 1])
    assert after([Rescale(1, field="x")], x=x).x.tolist() == [np.inf, 1e6, -1e6, 1]
    assert after([Rescale(1, field="x", dtype="float16")], x=x).x.tolist() == [np.inf, np.inf, -np.inf, 1]


def test_the_spec_knows_the_field():
    stage = Augmentations([Normalize(1, 2, field="x", dtype="float16"), FlipX()])
    reader = ArrayReader(x=table(np.float64), batch_size=2)
    spec = stage.out_spec(reader.out_spec(None))
    assert spec["x"].dtype == np.float16
    assert spec["x"].shape == (None, 4)


@pytest.mark.parametrize(
    "step",
    [
        FlipX(),
        Normalize(),
        Sequential([ToFloat(field="x"), FlipX()]),
        RandomApply([FlipX()], 0.5),
        OneOf([FlipX()]),
    ],
    ids=lambda step: type(step).__name__,
)
def test_a_transform_without_its_images_says_so(step):
    with pytest.raises(FieldError) as caught:
        after([ToFloat(field="x"), step], x=table(), y=np.arange(N))
    text = str(caught.value)
    assert text.startswith(
        f"Augmentations: transform 2 of 2, {step!r}, needs the field 'images'; the batch has x, y;"
    )
    assert "ArrayReader(images=...)" in text and "field='x'" in text


def test_compositions_of_fields_alone_need_no_images():
    found = after([Sequential([Rescale(2, field="x"), Rescale(1, 1, field="x")])], x=table())
    assert (found.x == table() * 2 + 1).all()


@pytest.mark.parametrize(
    ("step", "x", "named"),
    [
        (Normalize(0, 1, field="z"), table(), "field is 'z'; expected one of the batch, which has x"),
        (Normalize([1, 2], 1, field="x"), table(), r"field 'x' of shape \(6, 4\)"),
        (Normalize([1] * N, 1, field="x"), table(shape=(N,)), r"field 'x' of shape \(6,\)"),
        (Rescale(1, field="x"), table().astype(complex), "the field 'x' is complex128"),
        (Rescale(1, field="x"), table().astype(str), "the field 'x' is <U"),
    ],
)
def test_what_a_field_cannot_be(step, x, named):
    with pytest.raises((ArgumentError, FieldError), match=f"^{type(step).__name__}: .*{named}"):
        after([step], x=x)


def test_arguments():
    assert repr(Normalize(field="x")).endswith(", field='x')")
    assert "field" not in repr(Normalize()) + repr(ToFloat())
    assert Normalize(field="x") != Normalize()
    Normalize(-5, 300, field="x")
    for wrong in (
        {"field": 3},
        {"field": "a b"},
        {"field": "x", "dtype": "bfloat16"},
        {"std": 0, "field": "x"},
    ):
        with pytest.raises(ArgumentError, match=r"^Normalize: "):
            Normalize(**wrong)
    with pytest.raises(ArgumentError, match=r"under another name, .* field='x'"):
        after([Normalize()], images=table())
