"""Warps as transforms: what is drawn, what becomes of images, boxes, masks and keypoints, and what is refused."""

import numpy as np
import pytest

from highway import Batch
from highway._core.pixels import warp
from highway.errors import ArgumentError
from highway.sampling.rng import SampleRandom
from highway.transforms import Affine, Perspective, Rotate, Shift, Transpose, Warp, Zoom
from highway.transforms.geometry import inverse, product
from highway.transforms.warps import ComposedWarp

WARPS = [
    Rotate(40, fill=9),
    Rotate(180, interpolation="nearest"),
    Affine(30, translate=(0.1, 0.2), scale=(0.8, 1.3), shear=(-10, 10, -5, 15)),
    Perspective(0.4, p=1.0),
    Shift(0.2, (-0.1, 0.3), fill=(1, 2, 3)),
    Zoom((0.6, 1.6)),
    Transpose(1.0),
]


def random(shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def rng(count, position=0):
    return SampleRandom(5, 0, np.arange(count), position)


def drawn(step, count, height, width):
    """Forward matrices of many samples."""
    params = step.choose(rng(count), (count, height, width, 3))
    return step.geometry(params, (count, height, width)).matrices


def moved(matrix, x, y):
    point = matrix @ (x, y, 1)
    return point[:2] / point[2]


@pytest.mark.parametrize("step", WARPS, ids=repr)
def test_keypoints_boxes_and_masks_follow_the_image(step):
    """A blob in an image is where its keypoint goes, inside of its box and where the mask has it."""
    count, height, width = 24, 90, 130
    places = np.random.default_rng(1).uniform((45, 35), (85, 55), (count, 2))
    rows, columns = np.mgrid[:height, :width] + 0.5
    distances = np.hypot(columns - places[:, 0, None, None], rows - places[:, 1, None, None])
    images = np.repeat((np.clip(6 - distances, 0, 1) * 200).astype(np.uint8)[..., None], 3, axis=3)
    masks = (distances < 5.5).astype(np.uint8)
    params = step.draw(rng(count), Batch({"images": images}))
    shape = (count, height, width)
    out = step.apply_images(images, params)
    out_masks = step.apply_masks(masks, params, 0)
    owners = np.arange(count)
    points = step.apply_keypoints(places.astype(np.float32), owners, params, shape)
    corners = np.concatenate((places - 6, places + 6), axis=1).astype(np.float32)
    boxes, kept = step.apply_boxes(corners, owners, params, shape)
    assert out.shape[1:3] == out_masks.shape[1:3]
    seen = 0
    for i in range(count):
        low, high = boxes[i, :2], boxes[i, 2:]
        whole = (low > 1).all() and (high < np.array(out.shape[2:0:-1]) - 1).all()
        if not (whole and kept[i]):
            continue
        seen += 1
        weights = np.where(out[i, :, :, 0] > 20, out[i, :, :, 0], 0).astype(float)
        y, x = np.nonzero(weights)
        assert x.min() >= low[0] - 1 and x.max() + 1 <= high[0] + 1
        assert y.min() >= low[1] - 1 and y.max() + 1 <= high[1] + 1
        center = np.average(np.stack((x, y), axis=1) + 0.5, axis=0, weights=weights[y, x])
        assert np.abs(center - points[i]).max() < 0.6
        inside = weights > 100
        # Only along the rim.
        assert (out_masks[i].astype(bool) ^ inside).sum() <= 0.25 * inside.sum()
        mask_center = np.argwhere(out_masks[i]).mean(axis=0)[::-1] + 0.5
        assert np.abs(mask_center - points[i]).max() < 0.4
    assert seen > count / 2


def test_rotate_turns_counter_clockwise_about_the_centre_within_its_range():
    matrices = drawn(Rotate((20, 70)), 400, 60, 100)
    assert np.allclose(matrices @ (50, 30, 1), (50, 30, 1))
    right = matrices @ (60, 30, 1)
    angles = np.degrees(np.arctan2(30 - right[:, 1], right[:, 0] - 50))
    assert angles.min() >= 20 and angles.max() <= 70
    assert angles.min() < 22 and angles.max() > 68
    assert np.allclose(np.linalg.det(matrices), 1)


def test_a_quarter_turn_is_exact():
    images = random((2, 33, 33, 3))
    step = Rotate((90, 90))
    out = step.apply_images(images, step.choose(rng(2), images.shape))
    assert np.array_equal(out, np.rot90(images, axes=(1, 2)))


def test_affine_composes_as_torchvision_does():
    """Against what `_get_inverse_affine_matrix` of torchvision 0.29 gives for the same parameters."""
    step = Affine((25, 25), None, (1.25, 1.25), (10, 10, -7, -7))
    expected = [
        [0.6497336096754955, 0.4586199955772107, 3.754719648908903],
        [-0.4271190923319021, 0.6835334314714155, 30.84995167245264],
    ]
    assert np.allclose(inverse(drawn(step, 3, 60, 100))[:, :2], expected, rtol=0, atol=1e-12)


def test_signs_are_what_the_documents_say():
    """Of a point right of the center and one above it: as torchvision 0.29; albumentations turns the other way."""
    right, above = (100.0, 50.5), (70.5, 20.0)

    def ends(step):
        matrix = drawn(step, 1, 101, 141)[0]
        return [tuple(np.round(moved(matrix, *point), 1).tolist()) for point in (right, above)]

    assert ends(Affine((20, 20))) == [(98.2, 60.6), (80.9, 21.8)]
    assert ends(Rotate((20, 20))) == [(98.2, 40.4), (60.1, 21.8)]
    assert ends(Affine(shear=(20, 20, 0, 0))) == [right, (81.6, 20.0)]
    assert ends(Affine(shear=(0, 0, 20, 20))) == [(100.0, 39.8), above]
    # Sheared first, then turned.
    assert ends(Affine((25, 25), shear=(20, 20, 10, 10))) == [(99.4, 58.3), (94.3, 25.8)]


def test_the_edge_of_a_warp_is_hard():
    white = np.full((1, 101, 141, 1), 255, np.uint8)
    step = Rotate((20, 20))
    out = step.apply_images(white, step.choose(rng(1), white.shape))
    assert set(np.unique(out).tolist()) == {0, 255}
    assert 0.85 < (out == 255).mean() < 0.88


def test_affine_draws_from_its_ranges():
    matrices = drawn(Affine(0, translate=(0.1, 0.3)), 500, 60, 100)
    assert np.array_equal(matrices[:, :2, :2], np.broadcast_to(np.eye(2), (500, 2, 2)))
    assert np.array_equal(matrices, np.rint(matrices))
    assert np.abs(matrices[:, 0, 2]).max() == 10 and np.abs(matrices[:, 1, 2]).max() == 18
    scales = np.sqrt(np.linalg.det(drawn(Affine(90, scale=(0.5, 2), shear=20), 500, 60, 100)))
    assert 0.5 <= scales.min() < 0.52 and 1.98 < scales.max() <= 2
    slants = np.degrees(np.arctan(-drawn(Affine(shear=(5, 30)), 500, 60, 100)[:, 0, 1]))
    assert 5 <= slants.min() < 6 and 29 < slants.max() <= 30


def test_perspective_moves_corners_inwards_by_whole_pixels():
    matrices = drawn(Perspective(0.5, p=1.0), 300, 60, 101)
    corners = np.array([[moved(m, *c) for c in ((0, 0), (101, 0), (101, 60), (0, 60))] for m in matrices])
    steps = np.abs(corners - [(0, 0), (101, 0), (101, 60), (0, 60)])
    assert np.allclose(steps, np.rint(steps), atol=1e-9)
    assert steps[..., 0].max() < 25.5 and steps[..., 1].max() < 15.5
    assert steps[..., 0].max() > 24.5 and steps[..., 1].max() > 14.5
    assert corners.min() > -1e-9
    assert (corners < (101 + 1e-9, 60 + 1e-9)).all()


def test_perspective_of_the_full_scale_never_folds_the_image():
    matrices = drawn(Perspective(1.0, p=1.0), 2000, 40, 50)
    corners = np.array([(0, 0, 1), (50, 0, 1), (50, 40, 1), (0, 40, 1)])
    assert ((corners @ matrices.transpose(0, 2, 1))[..., 2] > 0).all()


def test_shift_moves_whole_pixels_by_parts_of_the_size():
    images = random((40, 30, 50, 3))
    step = Shift((0, 0.2), (-0.5, 0), fill=(1, 2, 3))
    params = step.choose(rng(40), images.shape)
    x, y = params[:, 0, 2].astype(int), params[:, 1, 2].astype(int)
    assert x.min() >= 0 and x.max() == 10 and y.min() == -15 and y.max() <= 0
    out = step.apply_images(images, params)
    for i in range(40):
        expected = np.full(images.shape[1:], (1, 2, 3), np.uint8)
        expected[: 30 + y[i], x[i] :] = images[i, -y[i] :, : 50 - x[i]]
        assert np.array_equal(out[i], expected)


def test_zoom_keeps_the_center():
    matrices = drawn(Zoom((0.5, 2)), 400, 60, 100)
    assert np.allclose(matrices @ (50, 30, 1), (50, 30, 1))
    factors = matrices[:, 0, 0]
    assert np.array_equal(factors, matrices[:, 1, 1])
    assert 0.5 <= factors.min() < 0.52 and 1.98 < factors.max() <= 2


def test_transpose():
    images = random((5, 20, 33, 3))
    step = Transpose(1.0)
    params = step.choose(rng(5), images.shape)
    assert np.array_equal(step.apply_images(images, params), images.swapaxes(1, 2))
    assert step.out_shape((20, 33, 3)) == (33, 20, 3)
    assert step.deterministic() is step
    never = Transpose(0.0)
    assert never.apply_images(images, never.choose(rng(5), images.shape)) is images
    assert never.out_shape((20, 33, 3)) == (20, 33, 3)
    square = random((64, 9, 9, 1)).astype(np.float64)
    sometimes = Transpose()
    chosen = sometimes.choose(rng(64), square.shape)
    assert 16 < chosen.sum() < 48
    out = sometimes.apply_images(square, chosen)
    assert np.array_equal(out, np.where(chosen[:, None, None, None], square.swapaxes(1, 2), square))
    assert sometimes.deterministic() is None
    with pytest.raises(ArgumentError, match=r"Transpose: p is 0\.5, for images of height 20 and width 33"):
        sometimes.draw(rng(5), Batch({"images": images}))
    with pytest.raises(ArgumentError, match="Transpose"):
        sometimes.out_shape((20, 33, 3))


@pytest.mark.parametrize(
    "make",
    [
        lambda p: Rotate(90, p=p),
        lambda p: Shift((0.5, 1), p=p),
        lambda p: Perspective(p=p),
        lambda p: Zoom(p=p),
    ],
)
def test_samples_that_are_not_chosen_stay(make):
    images = random((200, 12, 14, 3))
    for p in (0.0, 0.3, 1.0):
        params = make(p).choose(rng(200), images.shape)
        stays = (params == np.eye(3)).all(axis=(1, 2))
        assert abs((1 - stays.mean()) - p) < 0.12
        out = make(p).apply_images(images, params)
        assert np.array_equal(out[stays], images[stays])


def test_each_sample_has_its_own_draws_whatever_the_batch():
    for step in WARPS[:-1]:
        whole = step.choose(SampleRandom(1, 2, np.arange(8), 3), (8, 20, 30, 3))
        alone = step.choose(SampleRandom(1, 2, np.array([5]), 3), (1, 20, 30, 3))
        assert np.array_equal(whole[5], alone[0])


def test_real_images_and_empty_ones():
    step = Rotate(30, fill=0.5)
    images = np.random.default_rng(0).random((3, 9, 8, 2), np.float32)
    out = step.apply_images(images, step.draw(rng(3), Batch({"images": images})))
    assert out.dtype == np.float32 and (out[:, 0, 0] == 0.5).any()
    for step in (Rotate(30), Affine(5), Perspective(p=1.0), Shift(), Zoom(), Transpose()):
        for shape in ((0, 4, 4, 3), (2, 0, 0, 3), (2, 1, 1, 3), (2, 3, 3, 0)):
            empty = np.zeros(shape, np.uint8)
            assert step.apply_images(empty, step.draw(rng(shape[0]), Batch({"images": empty}))).shape == shape


def test_what_boxes_lose():
    step = Shift((1, 1), 0, min_visible=0.5)
    boxes = np.array([[0, 0, 10, 10], [0, 0, 4, 4]], np.float32)
    params = np.tile(np.eye(3), (1, 1, 1))
    params[:, 0, 2] = 14
    _, kept = step.apply_boxes(boxes, np.zeros(2, np.int64), params, (1, 20, 20))
    assert kept.tolist() == [True, True]
    params[:, 0, 2] = 16
    _, kept = step.apply_boxes(boxes, np.zeros(2, np.int64), params, (1, 20, 20))
    assert kept.tolist() == [False, True]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Rotate(-3), "Rotate: degrees is -3"),
        (lambda: Rotate((3, 1)), r"Rotate: degrees is \(3, 1\)"),
        (lambda: Rotate((1, 2, 3)), "Rotate: degrees"),
        (lambda: Rotate("x"), "Rotate: degrees"),
        (lambda: Rotate(float("nan")), "Rotate: degrees"),
        (lambda: Rotate(3, p=1.5), r"Rotate: p is 1\.5"),
        (lambda: Rotate(3, interpolation="cubic"), "Rotate: interpolation is 'cubic'"),
        (lambda: Rotate(3, fill=()), "Rotate: fill"),
        (lambda: Rotate(3, min_visible=2), "Rotate: min_visible is 2"),
        (lambda: Affine(translate=0.1), "Affine: translate"),
        (lambda: Affine(translate=(0.1, 1.1)), "Affine: translate"),
        (lambda: Affine(scale=(0, 1)), "Affine: scale"),
        (lambda: Affine(scale=2), "Affine: scale"),
        (lambda: Affine(shear=90), "Affine: shear"),
        (lambda: Affine(shear=(1, 2, 3)), "Affine: shear"),
        (lambda: Affine(shear=(0, 2, 5, 3)), "Affine: shear"),
        (lambda: Perspective(1.1), "Perspective: distortion_scale"),
        (lambda: Shift(1.1), "Shift: x is"),
        (lambda: Shift(0, (-2, 0)), "Shift: y is"),
        (lambda: Zoom(1.5), "Zoom: scale is"),
        (lambda: Zoom((2, 1)), "Zoom: scale is"),
        (lambda: Transpose(-1), "Transpose: p is -1"),
    ],
)
def test_arguments_out_of_range(make, message):
    with pytest.raises(ArgumentError, match=message):
        make()


def test_images_that_do_not_fit():
    images = random((2, 8, 8, 3))
    for step in (Rotate(5, fill=(1, 2)), Rotate(5, fill=256), Rotate(5, fill=0.5)):
        with pytest.raises(ArgumentError, match="Rotate: fill"):
            step.draw(rng(2), Batch({"images": images}))
        with pytest.raises(ArgumentError, match="Rotate: fill"):
            step.out_shape((8, 8, 3))
    with pytest.raises(ArgumentError, match="Rotate: images are float64"):
        Rotate(5).draw(rng(2), Batch({"images": images / 255}))
    with pytest.raises(ArgumentError, match="Rotate: images"):
        Rotate(5).draw(rng(2), Batch({"images": images[0]}))
    assert Rotate(5).out_shape((8, 9, 3)) == (8, 9, 3)


def test_a_warp_of_ones_own():
    class Squeeze(Warp):
        def __init__(self):
            super().__init__(p=1.0, interpolation="nearest")

        def matrices(self, rng, height, width):
            return np.tile(np.diag((0.5, 1.0, 1.0)), (len(rng), 1, 1))

    images = random((2, 5, 8, 3))
    out = Squeeze().apply_images(images, Squeeze().draw(rng(2), Batch({"images": images})))
    assert np.array_equal(out[:, :, :4], images[:, :, 1::2])
    assert not out[:, :, 4:].any()
    assert Squeeze().deterministic() is None


def step_by_step(images, steps, fill):
    """Nearest through each step on its own."""
    for matrices, height, width in steps:
        out = np.empty((len(images), height, width, images.shape[3]), images.dtype)
        warp.sample(images, inverse(matrices), np.empty((len(images), 0, 3)), fill, warp.NEAREST, out)
        images = out
    return images


def crop(count, top, left):
    matrices = np.tile(np.eye(3), (count, 1, 1))
    matrices[:, 0, 2], matrices[:, 1, 2] = -left, -top
    return matrices


def test_a_course_of_moves_and_one_warp_is_what_its_steps_are():
    """Before and behind a warp everything is whole pixels, so each step on its own has nothing to round.

    Points on the border between two pixels may go to either.
    """
    images = random((6, 40, 50, 3))
    fill = np.array([1, 2, 3], np.uint8)
    for turn in (drawn(Rotate(180), 6, 24, 32), drawn(Perspective(0.6, p=1.0), 6, 24, 32)):
        mirror = np.tile(np.diag((-1.0, 1.0, 1.0)), (6, 1, 1))
        mirror[:, 0, 2] = 32
        steps = [
            (crop(6, 5, 10), 24, 32),
            (mirror, 24, 32),
            (turn, 24, 32),
            (crop(6, -4, 3), 30, 20),
            (crop(6, 6, -5), 20, 30),
            (np.tile(np.eye(3)[[1, 0, 2]], (6, 1, 1)), 30, 20),
        ]
        composed = ComposedWarp(*images.shape[:3])
        for step in steps:
            composed.then(*step)
        out = composed.sampled(images, warp.NEAREST, fill)
        expected = step_by_step(images, steps, fill)
        rows, columns = np.mgrid[:30, :20] + 0.5
        centers = np.stack((columns, rows, np.ones((30, 20))), axis=-1).reshape(-1, 3)
        points = centers @ inverse(composed.matrices).transpose(0, 2, 1)
        points = (points[..., :2] / points[..., 2:]).reshape(6, 30, 20, 2)
        between = (np.abs(points - np.rint(points)) < 1e-9).any(axis=3)
        assert between.mean() < 0.01
        assert np.array_equal(out[~between], expected[~between])
        assert (expected == fill).all(axis=3).any() and (expected != fill).any()


def test_edges_between_stay_edges():
    """Out of a crop nothing comes back that it has cut off; behind the eye of one of two perspectives neither."""
    images = np.full((1, 20, 20, 1), 255, np.uint8)
    composed = ComposedWarp(1, 20, 20)
    composed.then(crop(1, 5, 5), 10, 10)
    composed.then(crop(1, -5, -5), 20, 20)
    out = composed.sampled(images, warp.BILINEAR, np.zeros(1, np.uint8))
    expected = np.zeros((20, 20))
    expected[5:15, 5:15] = 255
    assert np.array_equal(out[0, :, :, 0], expected)
    through = np.eye(3)
    through[2, 0] = -0.1
    composed = ComposedWarp(1, 20, 20)
    composed.then(through[None], 20, 20)
    composed.then(np.linalg.inv(through)[None], 20, 20)
    out = composed.sampled(images, warp.NEAREST, np.zeros(1, np.uint8))[0, :, :, 0]
    assert out[2, 2] == 255
    assert not out[:, 11:].any()
    assert np.allclose(composed.matrices, np.eye(3))


def test_half_planes_that_cut_nothing_are_left_out():
    composed = ComposedWarp(2, 20, 20)
    composed.then(crop(2, 5, 5), 10, 10)
    composed.then(crop(2, 1, 1), 8, 8)
    assert composed.bounds.shape == (2, 4, 3)
    assert composed._needed().shape == (2, 0, 3)


def test_inverse_and_product():
    matrices = np.random.default_rng(0).normal(size=(20, 3, 3))
    assert np.allclose(inverse(matrices), np.linalg.inv(matrices))
    assert np.allclose(product(matrices, matrices[::-1]), matrices @ matrices[::-1])
    assert np.array_equal(inverse(crop(1, 3, -7)), crop(1, -3, 7))
