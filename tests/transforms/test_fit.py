"""Fits: where their windows lie, and that they give on arrays what they give in a reader."""

import numpy as np
import pytest
from pictures import photograph
from PIL import Image, ImageOps

from highway.batch import Batch
from highway.engine import Pipeline
from highway.errors import ArgumentError, ContractError
from highway.modules import ImageFileReader
from highway.sampling.rng import SampleRandom
from highway.transforms import CenterFit, Fit, Letterbox, RandomResizedCrop, Stretch
from highway.transforms.placement import Placement

SIZES = np.array([[375, 500], [500, 375], [68, 2400], [2400, 68], [1, 1], [7, 5], [240, 320], [17, 1000]])


def place(fit, size=(240, 320), heights=SIZES[:, 0], widths=SIZES[:, 1], seed=0, indices=None):
    indices = np.arange(len(heights)) if indices is None else indices
    return fit.place(SampleRandom(seed, 0, indices, 0), heights, widths, size)


def apply(fit, images, seed=0):
    batch = Batch({"images": images})
    params = fit.draw(SampleRandom(seed, 0, batch.indices, 0), batch)
    return fit.apply_images(images, params)


@pytest.mark.parametrize("fit", [CenterFit(), Letterbox(), Stretch(), RandomResizedCrop()])
@pytest.mark.parametrize("size", [(240, 320), (1, 1), (3, 500)])
def test_windows_lie_inside(fit, size):
    rng = SampleRandom(0, 0, np.arange(len(SIZES)), 0)
    windows, targets, mirrored = fit.choose(rng, SIZES[:, 0], SIZES[:, 1], size)
    assert (
        np.all(windows[:, :2] >= 0)
        and np.all(windows[:, 2] <= SIZES[:, 1])
        and np.all(windows[:, 3] <= SIZES[:, 0])
    )
    assert np.all(windows[:, 2:] > windows[:, :2])
    assert mirrored.shape in ((1, 2), (len(SIZES), 2)) and not mirrored.any()
    assert (
        np.all(targets[:, :2] >= 0)
        and np.all(targets[:, 2:] <= size[::-1])
        and np.all(targets[:, 2:] > targets[:, :2])
    )


@pytest.mark.parametrize("size", [(24, 32), (32, 24), (20, 20), (5, 50)])
@pytest.mark.parametrize("source", [(37, 50), (50, 37), (40, 40), (10, 100)])
def test_center_fit_is_pils(size, source):
    image = np.asarray(photograph(*source))
    expected = ImageOps.fit(Image.fromarray(image), size[::-1], Image.Resampling.BILINEAR)
    difference = np.abs(apply(CenterFit(size), image[None])[0].astype(int) - np.asarray(expected))
    assert difference.max() <= 2 and difference.mean() <= 1


def test_stretch_is_pils_resize():
    image = np.asarray(photograph(50, 70))
    expected = Image.fromarray(image).resize((40, 20), Image.Resampling.BILINEAR)
    assert np.abs(apply(Stretch((20, 40)), image[None])[0].astype(int) - np.asarray(expected)).max() <= 2


def test_letterbox_has_the_margins_of_ultralytics():
    """By the formulas of its LetterBox(auto=False, scaleup=True, center=True), for all that fits into small outputs."""
    heights, widths = (one.reshape(-1) for one in np.mgrid[1:40, 1:40])
    for size in ((20, 20), (21, 20), (24, 33), (13, 7)):
        targets = Letterbox().place(None, heights, widths, size).targets
        for height, width, target in zip(heights.tolist(), widths.tolist(), targets.tolist(), strict=True):
            ratio = min(size[0] / height, size[1] / width)
            new_width, new_height = round(width * ratio), round(height * ratio)
            if 0 in (new_width, new_height):
                continue
            across, down = (size[1] - new_width) / 2, (size[0] - new_height) / 2
            left, top = round(across - 0.1), round(down - 0.1)
            assert target == [left, top, left + new_width, top + new_height], (size, height, width)


@pytest.mark.parametrize("size", [(24, 32), (32, 24), (20, 20)])
@pytest.mark.parametrize("fill", [0, 114, (1, 2, 3)])
def test_letterbox_is_pils_pad(size, fill):
    image = np.asarray(photograph(37, 50))
    fitted = ImageOps.contain(Image.fromarray(image), size[::-1], Image.Resampling.BILINEAR)
    ours = apply(Letterbox(size, fill=fill), image[None])[0].astype(int)
    top, left = (size[0] - fitted.height) // 2, (size[1] - fitted.width) // 2
    expected = np.empty((*size, 3), int)
    expected[:] = fill
    expected[top : top + fitted.height, left : left + fitted.width] = np.asarray(fitted)
    assert np.abs(ours - expected).max() <= 2


def test_random_resized_crop_draws_what_it_promises():
    count = 20_000
    heights, widths = np.full(count, 400), np.full(count, 500)
    fit = RandomResizedCrop(scale=(0.2, 0.6), ratio=(0.8, 1.25))  # every such window fits
    windows = place(fit, (224, 224), heights, widths).windows
    np.testing.assert_array_equal(windows, np.rint(windows))
    width, height = windows[:, 2] - windows[:, 0], windows[:, 3] - windows[:, 1]
    area, ratio = width * height / 200_000, width / height
    assert area.min() >= 0.199 and area.max() <= 0.602
    assert ratio.min() >= 0.79 and ratio.max() <= 1.27
    # Evenly in area, in the logarithm of the ratio, and in place.
    assert abs(area.mean() - 0.4) < 0.01
    assert abs(np.log(ratio).mean()) < 0.005
    free = windows[:, 0] / np.maximum(500 - width, 1)
    assert abs(free.mean() - 0.5) < 0.01 and free.min() == 0 and free.max() == 1


def test_random_resized_crop_falls_back_to_the_center():
    windows = place(
        RandomResizedCrop(), (224, 224), np.array([10, 1000, 40]), np.array([1000, 10, 50])
    ).windows
    np.testing.assert_array_equal(windows[0], [493, 0, 506, 10])  # 10 * 4/3 = 13 wide
    np.testing.assert_array_equal(windows[1], [0, 493, 10, 506])


def test_draws_belong_to_samples():
    fit = RandomResizedCrop()
    heights, widths = np.full(6, 300), np.full(6, 400)
    together = place(fit, heights=heights, widths=widths, indices=np.arange(6)).windows
    alone = place(fit, heights=heights[:1], widths=widths[:1], indices=np.array([4])).windows
    np.testing.assert_array_equal(together[4], alone[0])
    assert len(np.unique(together, axis=0)) == 6
    assert not np.array_equal(
        together, place(fit, heights=heights, widths=widths, seed=1, indices=np.arange(6)).windows
    )


@pytest.mark.parametrize(
    "fit", [CenterFit((24, 24)), Stretch((24, 30)), Letterbox((24, 24), fill=9), RandomResizedCrop((24, 24))]
)
def test_reader_and_arrays_give_the_same(tmp_path, fit):
    """Lossless files of one size, once through the reader's fit and once as arrays."""
    (tmp_path / "a").mkdir()
    pictures = [np.asarray(photograph(48, 64, seed)) for seed in range(5)]
    for number, picture in enumerate(pictures):
        Image.fromarray(picture).save(tmp_path / "a" / f"{number}.png")
    reader = ImageFileReader(tmp_path, 5, fit.size, fit=fit, shuffle=False, epochs=1)
    with Pipeline([reader]) as pipeline:
        images, _ = pipeline.dequeue()
        np.testing.assert_array_equal(images, apply(fit, np.stack(pictures)))


def test_a_fit_of_ones_own(tmp_path):
    class TopLeft(Fit):
        def place(self, rng, heights, widths, size):
            corners = np.tile(np.array([0, 0, 10, 10]), (len(heights), 1))
            targets = np.tile(np.array([0, 0, size[1], size[0]]), (len(heights), 1))
            return Placement(corners, targets)

    image = np.asarray(photograph(30, 40))
    np.testing.assert_array_equal(apply(TopLeft((10, 10)), image[None])[0], image[:10, :10])
    (tmp_path / "a").mkdir()
    Image.fromarray(image).save(tmp_path / "a" / "1.png")
    with Pipeline([ImageFileReader(tmp_path, 1, (10, 10), fit=TopLeft(), epochs=1)]) as pipeline:
        np.testing.assert_array_equal(pipeline.dequeue().images[0], image[:10, :10])


def test_a_fit_that_returns_nonsense_is_named():
    class Wrong(Fit):
        def place(self, rng, heights, widths, size):
            return np.zeros((1, 4)), np.zeros((1, 4))

    with pytest.raises(ContractError, match=r"Wrong: place returned .* expected \(2, 4\)"):
        apply(Wrong((4, 4)), np.zeros((2, 8, 8, 3), np.uint8))


def test_a_fit_may_mirror_all_images_or_some():
    class Mirrors(Fit):
        flags = ((False, False),)

        def place(self, rng, heights, widths, size):
            count = len(heights)
            windows = np.tile(np.array([4, 2, 34.5, 28]), (count, 1))
            targets = np.tile(np.array([1, 3, size[1] - 9, size[0] - 4]), (count, 1))
            return Placement(windows, targets, np.array(self.flags))

    images = np.stack([np.asarray(photograph(30, 40, seed)) for seed in range(3)])
    boxes, owners = np.array([(5, 4, 20, 18), (10, 10, 60, 14)], np.float32), np.array([0, 2])
    plain = Mirrors((25, 31))
    made = apply(plain, images)

    def found(fit):
        params = fit.draw(SampleRandom(0, 0, np.arange(3), 0), Batch({"images": images}))
        return fit.apply_boxes(boxes, owners, params, images.shape[:3])

    class All(Mirrors):
        flags = ((True, False),)

    class Some(Mirrors):
        flags = ((False, True), (True, False), (True, True))

    np.testing.assert_array_equal(apply(All((25, 31)), images), made[:, :, ::-1])
    some = np.stack([made[0, ::-1], made[1, :, ::-1], made[2, ::-1, ::-1]])
    np.testing.assert_array_equal(apply(Some((25, 31)), images), some)
    (expected, kept), (mirrored, kept_too) = found(plain), found(Some((25, 31)))
    np.testing.assert_array_equal(kept, kept_too)
    np.testing.assert_allclose(
        mirrored[0], [expected[0, 0], 25 - expected[0, 3], expected[0, 2], 25 - expected[0, 1]]
    )
    np.testing.assert_allclose(
        mirrored[1], [31 - expected[1, 2], 25 - expected[1, 3], 31 - expected[1, 0], 25 - expected[1, 1]]
    )

    class Wrong(Mirrors):
        flags = ((True, False), (False, False))

    with pytest.raises(ContractError, match=r"mirrored of shape \(2, 2\); expected \(3, 2\) or \(1, 2\)"):
        apply(Wrong((25, 31)), images)


@pytest.mark.parametrize(
    ("window", "target"),
    [
        ((0, 0, 9, 8), (0, 0, 4, 4)),
        ((0, -1, 8, 8), (0, 0, 4, 4)),
        ((0, 0, np.nan, 8), (0, 0, 4, 4)),
        ((3, 0, 3, 8), (0, 0, 4, 4)),
        ((0, 0, 8, 8), (0, 0, 4, 5)),
        ((0, 0, 8, 8), (2, 0, 2, 4)),
    ],
)
def test_a_fit_that_leaves_the_picture_is_named(window, target):
    class Outside(Fit):
        def place(self, rng, heights, widths, size):
            return Placement(
                np.array([(0, 0, 8, 8), window], float), np.array([(0, 0, 4, 4), target], np.int32)
            )

    with pytest.raises(
        ContractError, match=r"Outside: place returned window .* picture of 8 x 8 .* both inside"
    ):
        apply(Outside((4, 4)), np.zeros((2, 8, 8, 3), np.uint8))


@pytest.mark.parametrize("kind", ["jpg", "png"])
@pytest.mark.parametrize(
    ("window", "target"), [((0, 0, 41, 30), (0, 0, 4, 4)), ((0, 0, 4, 4), (0, 0, 5, 4))], ids=str
)
def test_a_reader_names_the_fit_that_leaves_the_picture(tmp_path, kind, window, target):
    class Outside(Fit):
        def place(self, rng, heights, widths, size):
            return Placement(np.array([window], float), np.array([target], np.int32))

    (tmp_path / "a").mkdir()
    photograph(30, 40).save(tmp_path / "a" / f"1.{kind}")
    with (
        Pipeline([ImageFileReader(tmp_path, 1, (4, 4), fit=Outside(), epochs=1)]) as pipeline,
        pytest.raises(
            ContractError, match=r"Outside: place returned window .* picture of 30 x 40 .* both inside"
        ),
    ):
        pipeline.dequeue()


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: CenterFit(0), "size is 0"),
        (lambda: CenterFit((3, 4, 5)), r"size is \(3, 4, 5\)"),
        (lambda: CenterFit((3, -1)), r"size\[1\] is -1"),
        (lambda: CenterFit("big"), "size is 'big'"),
        (lambda: Stretch(4, interpolation="cubic"), "interpolation is 'cubic'.*bicubic"),
        (lambda: Letterbox(4, fill=65536), "fill is 65536"),
        (lambda: Letterbox(4, fill=(1, 2.5)), "fill is 2.5"),
        (lambda: RandomResizedCrop(4, scale=(0, 1)), "scale is"),
        (lambda: RandomResizedCrop(4, scale=(0.5, 1.1)), "scale is.*<= 1"),
        (lambda: RandomResizedCrop(4, scale=0.5), "scale is 0.5"),
        (lambda: RandomResizedCrop(4, ratio=(2, 1)), "ratio is"),
    ],
)
def test_arguments_are_checked(make, message):
    with pytest.raises(ArgumentError, match=message):
        make()


def test_what_arrays_have_to_be():
    with pytest.raises(ArgumentError, match="CenterFit: size is missing"):
        apply(CenterFit(), np.zeros((1, 4, 4, 3), np.uint8))
    with pytest.raises(ArgumentError, match=r"float32.*before Normalize"):
        apply(CenterFit(2), np.zeros((1, 3, 4, 8), np.float32))
    with pytest.raises(ArgumentError, match="fill has 2 values for images of 3 channels"):
        apply(Letterbox((2, 9), fill=(1, 2)), np.zeros((1, 4, 4, 3), np.uint8))


@pytest.mark.parametrize(
    "fit",
    [
        CenterFit(),
        CenterFit((3, 4), "lanczos"),
        Stretch(5),
        Letterbox((3, 4), fill=(1, 2, 3)),
        RandomResizedCrop(7, (0.1, 0.9)),
    ],
)
def test_repr_builds_it_again(fit):
    again = eval(repr(fit))
    # It may have been made with other arguments of the same meaning.
    assert vars(again) | {"_given_arguments": None} == vars(fit) | {"_given_arguments": None}


def test_center_fit_stays_inside_whatever_the_rounding():
    heights, widths = (part.ravel() for part in np.meshgrid(np.arange(1, 700), np.arange(1, 700)))
    rng = SampleRandom(0, 0, np.arange(len(heights)), 0)
    for size in ((240, 320), (7, 3), (1, 999), (224, 224), (331, 97)):
        windows = CenterFit().choose(rng, heights, widths, size).windows
        shape = (windows[:, 2] - windows[:, 0]) / (windows[:, 3] - windows[:, 1])
        np.testing.assert_allclose(shape, size[1] / size[0], rtol=1e-9)
