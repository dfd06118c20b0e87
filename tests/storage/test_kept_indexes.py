"""The indexes of tars in stores, as a folder of this machine keeps them."""

import os

import numpy as np
import pytest
from tars import write_tar

from highway.errors import WriteError
from highway.storage import kept_indexes
from highway.storage.kept_indexes import KeptIndexes, number_of
from highway.storage.objects import Object
from highway.storage.tar_index import TarIndex, scanned_tar

COUNT = 20
URLS = [f"s3://bucket/t-{number:02}.tar" for number in range(COUNT)]


@pytest.fixture(scope="module")
def indexes(tmp_path_factory):
    """The index of each tar; of different lengths."""
    folder = tmp_path_factory.mktemp("tars")
    found = []
    for number, url in enumerate(URLS):
        members = [(f"{number}-{member}.jpg", bytes(number)) for member in range(1 + number % 3)]
        path = write_tar(folder / "a.tar", members)
        changed = number_of(etag_of(number))
        made = scanned_tar(str(path), path.stat().st_size, changed, "Test")
        arrays = made.starts, made.sizes, made.ends, made.checks, made.text
        found.append(TarIndex(url, made.size, changed, *arrays))
    return found


def etag_of(number, version=1):
    return f'"{number}-{version}"'


def objects(indexes, version=1):
    return [Object(index.path, index.size, etag_of(number, version)) for number, index in enumerate(indexes)]


def kept_in(folder, urls=URLS):
    return KeptIndexes(urls, "Test", str(folder))


def publish(folder, indexes, places=range(COUNT)):
    kept = kept_in(folder)
    for place in places:
        kept.keep(place, indexes[place], published=True)
    kept.write()


def same(index, expected):
    return (index.path, index.size, index.changed, index.packed()) == (
        expected.path,
        expected.size,
        expected.changed,
        expected.packed(),
    )


def test_many_published_indexes_are_one_file(tmp_path, indexes):
    publish(tmp_path, indexes)
    (name,) = os.listdir(tmp_path)
    assert name.endswith(".indexes")
    kept = kept_in(tmp_path)
    for place, (index, found) in enumerate(zip(indexes, objects(indexes), strict=True)):
        assert same(kept.find(place, found), index)
        # Of other objects, or of one that cannot be told from another.
        assert kept.find(place, found._replace(size=found.size + 512)) is None
        assert kept.find(place, found._replace(etag='"other"')) is None
        assert kept.find(place, found._replace(etag="")) is None
    # Another list has another file.
    assert kept_in(tmp_path, URLS[::-1]).find(0, objects(indexes)[-1]) is None


def test_an_index_that_was_made_serves_every_list(tmp_path, indexes):
    kept = kept_in(tmp_path)
    kept.keep(3, indexes[3], published=False)
    kept.keep(4, indexes[4], published=True)
    kept.write()
    assert len(os.listdir(tmp_path)) == 2
    other = kept_in(tmp_path, [URLS[4], URLS[3]])
    assert same(other.find(1, objects(indexes)[3]), indexes[3])
    assert same(other.find(0, objects(indexes)[4]), indexes[4])


def test_only_files_that_are_there_are_opened(tmp_path, indexes, monkeypatch):
    publish(tmp_path, indexes, [4])
    opened = []

    def read_whole(path, *arguments):
        opened.append(path)
        return whole(path, *arguments)

    whole = kept_indexes.read_whole
    monkeypatch.setattr(kept_indexes, "read_whole", read_whole)
    kept = kept_in(tmp_path)
    found = [kept.find(place, one) for place, one in enumerate(objects(indexes))]
    assert [place for place, index in enumerate(found) if index is not None] == [4]
    assert len(opened) == 1


@pytest.mark.parametrize("changed", [range(3, 5), range(2, 19)])
def test_changed_tars_among_many(tmp_path, indexes, changed):
    publish(tmp_path, indexes)
    now = objects(indexes)
    newer = list(indexes)
    kept = kept_in(tmp_path)
    for place in changed:
        now[place] = now[place]._replace(etag=etag_of(place, 2))
        newer[place] = TarIndex(
            *(
                number_of(etag_of(place, 2)) if name == "changed" else getattr(indexes[place], name)
                for name in TarIndex.__dataclass_fields__
            )
        )
    for place, found in enumerate(now):
        index = kept.find(place, found)
        assert (index is None) == (place in changed)
        if index is None:
            kept.keep(place, newer[place], published=True)
    kept.write()
    # A few get files of their own; with many, one file has the old and the new ones.
    assert len(os.listdir(tmp_path)) == (1 + len(changed) if len(changed) < 16 else 1)
    kept = kept_in(tmp_path)
    assert all(same(kept.find(place, found), newer[place]) for place, found in enumerate(now))


def test_damage_loses_indexes_and_changes_none(tmp_path, indexes):
    publish(tmp_path, indexes)
    (path,) = tmp_path.iterdir()
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    lost = 0
    for at in rng.permutation(len(whole))[:300].tolist():
        flipped = bytearray(whole)
        flipped[at] ^= 1 << int(rng.integers(8))
        for damaged in (whole[:at], flipped):
            path.write_bytes(damaged)
            kept = kept_in(tmp_path)
            for place, found in enumerate(objects(indexes)):
                index = kept.find(place, found)
                lost += index is None
                assert index is None or same(index, indexes[place])
    assert lost > 600


def test_more_than_a_file_may_have_are_files_of_their_own(tmp_path, indexes, monkeypatch):
    monkeypatch.setattr(kept_indexes, "LARGEST_FILE", 2000)
    publish(tmp_path, indexes)
    assert len(os.listdir(tmp_path)) == COUNT
    kept = kept_in(tmp_path)
    assert all(same(kept.find(place, found), indexes[place]) for place, found in enumerate(objects(indexes)))


@pytest.mark.parametrize("places", [range(3), range(COUNT)])
def test_a_folder_that_cannot_be_written_to(tmp_path, indexes, monkeypatch, caplog, places):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(WriteError, match="cannot be written"):
        publish(tmp_path / "file", indexes, places)
    # The default folder is not needed.
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    caplog.set_level("INFO", "highway.storage")
    kept = KeptIndexes(URLS, "Test", None)
    for place in places:
        kept.keep(place, indexes[place], published=True)
    kept.write()
    assert "not kept (use index_dir=FOLDER)" in caplog.text
