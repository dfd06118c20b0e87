"""Decoders of a crew make one batch after the other together."""

import gc
import io
import os
import threading
from functools import partial

import numpy as np
import pytest
from concurrency import Task
from decoding import decode_into
from pictures import jpeg_bytes, photograph
from PIL import Image

from highway._core.jpeg import codec as jpeg
from highway.errors import QueueClosed

# Two decoders share a batch of so many: each is to have 16 pictures of it.
MANY = 32


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    for number in range(MANY):
        (folder / f"{number}.jpg").write_bytes(jpeg_bytes(photograph(20 + number, 40, number)))
    return [os.fsencode(folder / f"{number}.jpg") for number in range(MANY)]


def begin(decoder, heads, nbytes=0):
    count = len(heads)
    windows = np.array([[0, 0, width, height] for _, height, width in heads], float)
    targets = np.array([[0, 0, 12, 10]] * count, np.int32)
    mirrored = np.zeros((count, 2), bool)
    decoder.begin(np.arange(count), windows, targets, mirrored, 2, False, (10, 12, 3), nbytes)


def finish(decoder, count):
    images = np.zeros((count, 10, 12, 3), np.uint8)
    assert decoder.finish(np.arange(count), jpeg.Images(images)) == [jpeg.OK] * count
    return images


@pytest.fixture(scope="module")
def expected(paths):
    decoder = jpeg.BatchDecoder()
    begin(decoder, decoder.read(paths))
    images = finish(decoder, MANY)
    decoder.close()
    assert all(image.any() for image in images)
    return images


def test_a_later_batch_waits_for_its_turn_and_helps(paths, expected):
    crew = jpeg.Crew()
    first, second = jpeg.BatchDecoder(crew), jpeg.BatchDecoder(crew)
    heads = first.read(paths, turn=1)
    events = []

    def later():
        begin(second, second.read(paths[::-1], turn=2))
        events.append("second begun")
        return finish(second, MANY)

    task = Task(later)
    begin(first, heads)
    events.append("first begun")
    np.testing.assert_array_equal(finish(first, MANY), expected)
    np.testing.assert_array_equal(task.result(), expected[::-1])
    assert events == ["first begun", "second begun"]


def test_turns_count_and_not_who_came_first(paths, expected):
    crew = jpeg.Crew()
    early, late = jpeg.BatchDecoder(crew), jpeg.BatchDecoder(crew)
    heads = late.read(paths, turn=6)
    early_heads = early.read(paths, turn=5)
    events = []

    def later():
        begin(late, heads)
        events.append("late")
        return finish(late, MANY)

    task = Task(later)
    begin(early, early_heads)
    events.append("early")
    finish(early, MANY)
    np.testing.assert_array_equal(task.result(), expected)
    assert events == ["early", "late"]


def test_small_batches_do_not_wait_for_each_other(paths):
    crew = jpeg.Crew()
    first, second = jpeg.BatchDecoder(crew), jpeg.BatchDecoder(crew)
    begin(first, first.read(paths[:8], turn=1))
    # In this very thread: it would wait for ever if it had to.
    begin(second, second.read(paths[:8], turn=2))
    finish(second, 8)
    finish(first, 8)


def test_large_images_are_not_made_in_many_batches_at_once(paths, expected):
    crew = jpeg.Crew()
    first, second = jpeg.BatchDecoder(crew), jpeg.BatchDecoder(crew)
    events = []
    begin(first, first.read(paths[:8], turn=1), nbytes=40 << 20)
    heads = second.read(paths[:8], turn=2)
    task = Task(lambda: begin(second, heads, nbytes=40 << 20) or events.append("second") or finish(second, 8))
    events.append("first")
    finish(first, 8)
    np.testing.assert_array_equal(task.result(), expected[:8])
    assert events == ["first", "second"]


def test_a_batch_that_is_given_up_holds_up_nobody(paths, expected):
    crew = jpeg.Crew()
    for give_up in ("leave", "close", "read"):
        first, second = jpeg.BatchDecoder(crew), jpeg.BatchDecoder(crew)
        first.read(paths, turn=1)
        task = Task(lambda second=second: begin(second, second.read(paths, turn=2)) or finish(second, MANY))
        {"leave": first.leave, "close": first.close, "read": partial(first.read, paths, turn=3)}[give_up]()
        np.testing.assert_array_equal(task.result(), expected)
        first.close()
        second.close()


def test_closing_the_crew_wakes_those_who_wait(paths):
    crew = jpeg.Crew()
    first, second = jpeg.BatchDecoder(crew), jpeg.BatchDecoder(crew)
    heads = first.read(paths, turn=1)
    begin(first, heads)
    second_heads = second.read(paths, turn=2)
    task = Task(begin, second, second_heads)
    crew.close()
    with pytest.raises(QueueClosed):
        task.result()


def test_a_decoder_that_the_garbage_collector_finds_leaves_its_crew(paths, expected):
    crew = jpeg.Crew()
    first, second = jpeg.BatchDecoder(crew), jpeg.BatchDecoder(crew)
    first.read(paths, turn=1)
    circle = [first]
    circle.append(circle)
    del first, circle
    gc.collect()
    begin(second, second.read(paths, turn=2))
    np.testing.assert_array_equal(finish(second, MANY), expected)


def test_a_closed_crew_does_not_go_on_with_its_batch(paths):
    crew = jpeg.Crew()
    decoder = jpeg.BatchDecoder(crew)
    begin(decoder, decoder.read(paths))
    crew.close()
    images = np.zeros((MANY, 10, 12, 3), np.uint8)
    with pytest.raises(QueueClosed):
        decoder.finish(np.arange(MANY), jpeg.Images(images))
    assert not images.any()
    with pytest.raises(QueueClosed):
        decoder.read(paths)


@pytest.mark.parametrize("workers", [1, 2, 3, 8])
def test_many_decoders_at_once(paths, expected, workers):
    crew = jpeg.Crew()
    turns = iter(range(40))
    lock = threading.Lock()

    def work():
        decoder = jpeg.BatchDecoder(crew)
        rng = np.random.default_rng(threading.get_ident() % 2**32)
        while True:
            with lock:
                turn = next(turns, None)
            if turn is None:
                decoder.close()
                return
            chosen = rng.permutation(MANY)[: rng.integers(1, MANY + 1)]
            begin(decoder, decoder.read([paths[i] for i in chosen], turn=turn))
            np.testing.assert_array_equal(finish(decoder, len(chosen)), expected[chosen])

    for task in [Task(work) for _ in range(workers)]:
        task.result()


def test_a_file_that_changes_between_its_header_and_its_pixels(tmp_path):
    path = tmp_path / "picture.jpg"
    decoder = jpeg.BatchDecoder()
    for change, message in (
        (lambda: path.write_bytes(jpeg_bytes(photograph(30, 40))), "30 x 40 pixels, before it had 250 x 300"),
        (lambda: path.write_bytes(b"nothing"), "does not begin like a JPEG"),
        (lambda: path.write_bytes(b""), "empty"),
        (path.unlink, "No such file"),
    ):
        path.write_bytes(jpeg_bytes(photograph(250, 300)))
        assert decoder.read([os.fsencode(path)]).tolist() == [[jpeg.OK, 250, 300]]
        # A small file is read as a whole for its header.
        assert path.stat().st_size > 4096
        change()
        out = np.zeros((1, 10, 10, 3), np.uint8)
        (status,) = decode_into(decoder, [0], [(0, 0, 300, 250)], [(0, 0, 10, 10)], 2, False, [0], out)
        assert status in (jpeg.BAD_FILE, jpeg.NO_FILE)
        assert message in decoder.message(0)


@pytest.mark.parametrize("format", ["PNG", "WebP", "JPEG"])
def test_a_file_that_is_read_for_its_header_is_kept_for_its_pixels(tmp_path, format):
    contents = io.BytesIO()
    photograph(50, 60).save(contents, format)
    path, decoder = tmp_path / "picture", jpeg.BatchDecoder()
    places = [0], [(0, 0, 60, 50)], [(0, 0, 60, 50)], 2, False, [0]
    expected, out = np.zeros((2, 1, 50, 60, 3), np.uint8)
    assert decoder.read_contents([contents.getvalue()]).tolist() == [[jpeg.OK, 50, 60]]
    assert decode_into(decoder, *places, expected) == [jpeg.OK]
    path.write_bytes(contents.getvalue())
    # Twice: the bytes of a read that was not finished are freed.
    for _ in range(2):
        assert decoder.read([os.fsencode(path)]).tolist() == [[jpeg.OK, 50, 60]]
    path.unlink()
    assert decode_into(decoder, *places, out) == [jpeg.OK]
    np.testing.assert_array_equal(out, expected)
    # Once: it is not kept after that.
    assert decode_into(decoder, *places, out) == [jpeg.NO_FILE]
    decoder.close()


def test_a_file_that_is_read_for_its_header_is_kept_for_another_decoder(tmp_path):
    path, decoder = tmp_path / "picture.gif", jpeg.BatchDecoder()
    path.write_bytes(b"GIF89a and so on")
    assert decoder.read([os.fsencode(path)])[0, 0] == jpeg.NOT_JPEG
    path.unlink()
    assert decoder.contents(0) == b"GIF89a and so on"
    assert decoder.contents(0) is None and "No such file" in decoder.message(0)
    decoder.close()


def test_files_that_are_kept_for_their_pixels_have_a_limit(tmp_path):
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (550, 600, 3), np.uint8)).save(
        tmp_path / "0.png"
    )
    size = (tmp_path / "0.png").stat().st_size
    paths = [os.fsencode(tmp_path / f"{number}.png") for number in range(20)]
    for path in paths[1:]:
        os.link(paths[0], path)
    decoder = jpeg.BatchDecoder()
    assert (decoder.read(paths)[:, 0] == jpeg.OK).all()
    for path in paths:
        os.unlink(path)
    count, out = len(paths), np.zeros((20, 8, 8, 3), np.uint8)
    rows = np.arange(count)
    statuses = decode_into(
        decoder, rows, [(0, 0, 600, 550)] * count, [(0, 0, 8, 8)] * count, 2, False, rows, out
    )
    kept = (16 << 20) // size
    assert statuses == [jpeg.OK] * kept + [jpeg.NO_FILE] * (count - kept) and 0 < kept < count
    decoder.close()


def test_headers_that_are_longer_than_what_is_read_first(tmp_path):
    decoder = jpeg.BatchDecoder()
    contents = jpeg_bytes(photograph(50, 60))
    for length in (3000, 4070, 4080, 4090, 4096, 5000, 60000):
        comment = b"\xff\xfe" + (length + 2).to_bytes(2, "big") + b"x" * length
        for repeated in (1, 3):
            (tmp_path / "long.jpg").write_bytes(contents[:2] + comment * repeated + contents[2:])
            assert decoder.read([os.fsencode(tmp_path / "long.jpg")]).tolist() == [[jpeg.OK, 50, 60]]


@pytest.mark.parametrize("spare", [1, 3, 40])
def test_many_more_files_than_may_be_open(tmp_path, spare):
    """The headers of a batch are read a few files at a time, one at a time if it must be."""
    import resource

    path = tmp_path / "picture.jpg"
    path.write_bytes(jpeg_bytes(photograph(20, 30)))
    decoder = jpeg.BatchDecoder()
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    # The listing itself has a descriptor that is free again afterwards.
    highest = max(int(name) for name in os.listdir("/proc/self/fd"))
    fillers = [os.open(os.devnull, os.O_RDONLY) for _ in range(highest)]
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(fillers) + 1 + spare, limits[1]))
    try:
        assert decoder.read([os.fsencode(path)] * 500).tolist() == [[jpeg.OK, 20, 30]] * 500
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        for filler in fillers:
            os.close(filler)


def test_what_was_refused_is_not_decoded(paths):
    decoder = jpeg.BatchDecoder()
    heads = decoder.read(paths)
    begin(decoder, heads)
    with pytest.raises(ValueError, match="not read with status OK"):
        decoder.begin(
            np.array([0, MANY]),
            np.array([[0, 0, 4, 4]] * 2, float),
            np.array([[0, 0, 400, 300]] * 2, np.int32),
            np.zeros((2, 2), bool),
            2,
            False,
            (300, 400, 3),
        )
    with pytest.raises(ValueError, match="slots for 0 samples"):
        decoder.finish(np.arange(MANY), jpeg.Images(np.zeros((MANY, 10, 12, 3), np.uint8)))


def test_what_is_given_may_be_changed_afterwards(paths, expected):
    decoder = jpeg.BatchDecoder()
    mine, samples = list(paths), np.arange(MANY)
    heads = decoder.read(mine)
    mine.clear()
    windows = np.array([[0, 0, width, height] for _, height, width in heads], float)
    targets = np.array([[0, 0, 12, 10]] * MANY, np.int32)
    mirrored = np.zeros((MANY, 2), bool)
    decoder.begin(samples, windows, targets, mirrored, 2, False, (10, 12, 3))
    samples[:], windows[:], targets[:], mirrored[:] = 1 << 40, -1, 1 << 20, True
    np.testing.assert_array_equal(finish(decoder, MANY), expected)
