"""ArrayReader with arrays in files: members of .npz files, HDF5, zarr; what is refused."""

import pickle
import sys
import threading
import zipfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from types import SimpleNamespace

import numpy as np
import pytest

from highway.engine import Pipeline
from highway.errors import ArgumentError, DecodeError, MissingPackageError, ReadError
from highway.modules import ArrayReader
from highway.modules.readers.arrays.requested import RequestedRows
from highway.modules.readers.arrays.windows import Places

N = 60
TABLE = np.random.default_rng(1).integers(0, 100, (N, 6, 4)).astype(np.float32)
WINDOWS = [
    {},
    {"window": 7},
    {"window": 7, "stride": 3},
    {"window": (7, 2), "stride": (3, 2)},
    {"window": (5, 3, 2)},
]


def epoch(**arguments):
    with Pipeline([ArrayReader(**arguments, batch_size=8, epochs=1, seed=4)]) as pipeline:
        return list(pipeline)


def check(**options):
    """Compare the batches of an array in a file with those of the same array in memory."""
    x = options.pop("x")
    found, expected = epoch(x=x, **options), epoch(x=TABLE, **options)
    assert len(found) == len(expected) > 0
    for one, other in zip(found, expected, strict=True):
        assert one.indices.tolist() == other.indices.tolist()
        assert one.x.dtype == other.x.dtype
        assert (one.x == other.x).all()
        assert one.x.flags.writeable and one.x.flags.c_contiguous


# .npz


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("order", ["C", "F"])
def test_members_of_an_archive(tmp_path, save, order):
    path = tmp_path / "some.npz"
    save(path, x=np.asarray(TABLE, order=order), y=np.arange(N), none=np.zeros((N, 0)))
    for options in WINDOWS:
        check(x=f"{path}:/x", **options)
    for batch in epoch(images=path):
        assert list(batch.fields) == ["x", "y", "none"]
        assert (batch.x == TABLE[batch.y]).all()
    (batch,) = Pipeline([ArrayReader(path, N, epochs=1)])
    assert batch.none.shape == (N, 0)


def test_stored_members_are_mapped_and_others_loaded(tmp_path):
    np.savez(tmp_path / "stored.npz", x=TABLE)
    np.savez_compressed(tmp_path / "packed.npz", x=TABLE)
    for name, mapped in (("stored", True), ("packed", False)):
        reader = ArrayReader(x=tmp_path / f"{name}.npz", batch_size=4)
        assert isinstance(reader._fields["x"].rows.array.base, np.memmap) == mapped


def test_archives_that_cannot_be_read(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, x=TABLE, y=np.arange(N), o=np.array([{}] * N, object))
    whole = path.read_bytes()
    for call, named in (
        (lambda: ArrayReader(x=path, batch_size=2), r"x is .*a\.npz, which names no array; .* x, y, o$"),
        (lambda: ArrayReader(x=f"{path}:/z", batch_size=2), "has no array 'z'"),
        (lambda: ArrayReader(x="a.npy:/z", batch_size=2), "expected a file with named arrays"),
    ):
        with pytest.raises(ArgumentError, match=named):
            call()
    with pytest.raises(DecodeError, match=r"a\.npz cannot be mapped as an \.npz file: .*objects"):
        ArrayReader(x=f"{path}:/o", batch_size=2)
    with pytest.raises(ReadError, match="No such file"):
        ArrayReader(x=tmp_path / "none.npz", batch_size=2)
    at = whole.index(b"'shape': (60")
    for contents in (
        b"",
        whole[:100],
        whole[: len(whole) // 2],
        whole[:at] + whole[at:].replace(b"(60", b"(99", 1),
        b"XX" + whole[2:],
        whole.replace(b"NUMPY\x01", b"NUMPY\x09"),
    ):
        bad = tmp_path / "bad.npz"
        bad.write_bytes(contents)
        with pytest.raises(DecodeError, match=r"bad\.npz cannot be mapped as an \.npz file"):
            ArrayReader(x=f"{bad}:/x", batch_size=2)


def test_an_archive_with_other_files_in_it(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, x=TABLE)
    with zipfile.ZipFile(path, "a") as file:
        file.writestr("readme.txt", "text")
    check(x=path)


# HDF5


@pytest.fixture
def hdf5(tmp_path):
    """An HDF5 file with an array in one piece, one in chunks, and one of strings."""
    h5py = pytest.importorskip("h5py")
    path = tmp_path / "some.h5"
    with h5py.File(path, "w") as file:
        file["x"] = TABLE
        file.create_dataset("group/chunks", data=TABLE, chunks=(8, 3, 4), compression="gzip")
        file["names"] = ["a"] * N
        file["number"] = 3
        file["nothing"] = h5py.Empty("f4")
        file["link"] = h5py.SoftLink("/elsewhere")
    return path


@pytest.mark.parametrize("name", ["x", "group/chunks"])
@pytest.mark.parametrize("options", WINDOWS)
def test_datasets_of_hdf5(hdf5, name, options):
    import h5py

    check(x=f"{hdf5}:/{name}", **options)
    with h5py.File(hdf5) as file:
        check(x=file[name], **options)


@pytest.mark.parametrize("workers", [1, 4])
def test_datasets_of_one_file_in_many_threads(hdf5, workers):
    found = epoch(x=f"{hdf5}:/x", y=f"{hdf5}:/group/chunks", workers=workers)
    assert sum(batch.size for batch in found) == N
    for batch in found:
        assert (batch.x == TABLE[batch.indices]).all()
        assert (batch.y == batch.x).all()


def test_a_reader_of_datasets_opens_them_again_after_pickling(hdf5):
    import h5py

    with h5py.File(hdf5) as file:
        reader = ArrayReader(
            {"x": file["x"], "y": file["group/chunks"]}, 8, fields={"z": file["x"]}, epochs=1
        )
        pickled = pickle.dumps(reader)
        assert pickle.loads(pickled) == reader
    with Pipeline([pickle.loads(pickled)]) as pipeline:
        for batch in pipeline:
            assert (batch.x == TABLE[batch.indices]).all()
            assert (batch.z == batch.y).all()


def test_a_file_that_was_closed_is_named(hdf5):
    import h5py

    with h5py.File(hdf5) as file:
        closed = file["x"]
        pipeline = Pipeline([ArrayReader(x=closed, batch_size=8)])
    with pytest.raises(ReadError, match=r"^ArrayReader: x: rows of .*some\.h5:/x cannot be read"), pipeline:
        pipeline.dequeue(timeout=60)
    with pytest.raises(ArgumentError, match="a dataset of a closed file"):
        ArrayReader(x=closed, batch_size=8)


def test_what_hdf5_files_lack(hdf5, tmp_path):
    for path, error, named in (
        (hdf5, ArgumentError, "names no array; .* its arrays are names, nothing, number, x"),
        (f"{hdf5}:/z", ArgumentError, "has no array 'z'"),
        (f"{hdf5}:/group", ArgumentError, "has no array 'group'"),
        (f"{hdf5}:/names", ArgumentError, "x is an array of object"),
        (f"{hdf5}:/number", ArgumentError, "x has no dimensions"),
        (f"{hdf5}:/nothing", ArgumentError, "x has no dimensions"),
        (f"{hdf5}:/link", DecodeError, r"x is .*some\.h5:/link, which cannot be opened: .*not found"),
        (tmp_path / "none.h5", ReadError, "No such file"),
    ):
        with pytest.raises(error, match=f"^ArrayReader: .*{named}"):
            ArrayReader(x=path, batch_size=2)
    (tmp_path / "bad.h5").write_bytes(b"no")
    with pytest.raises(DecodeError, match=r"bad\.h5 cannot be opened as an HDF5 file"):
        ArrayReader(x=tmp_path / "bad.h5", batch_size=2)


# zarr


@pytest.fixture
def zarr_folder(tmp_path):
    """A zarr array, and a group with the same one."""
    zarr = pytest.importorskip("zarr")
    path = tmp_path / "some.zarr"
    array = zarr.create_array(store=path, shape=TABLE.shape, chunks=(8, 3, 4), dtype=TABLE.dtype)
    array[:] = TABLE
    group = zarr.open_group(tmp_path / "group.zarr", mode="w")
    inner = group.create_array("inner", shape=TABLE.shape, chunks=(16, 6, 4), dtype=TABLE.dtype)
    inner[:] = TABLE
    group.create_array("other", shape=(3,), chunks=(3,), dtype="int8")
    return path


@pytest.mark.parametrize("options", WINDOWS)
def test_arrays_of_zarr(zarr_folder, options):
    import zarr

    check(x=zarr_folder, **options)
    check(x=zarr.open_array(zarr_folder, mode="r"), **options)
    check(x=f"{zarr_folder.parent}/group.zarr:/inner", **options)


def test_a_reader_of_zarr_is_pickled(zarr_folder):
    import zarr

    reader = ArrayReader(x=zarr.open_array(zarr_folder, mode="r"), batch_size=8, epochs=1)
    with Pipeline([pickle.loads(pickle.dumps(reader))]) as pipeline:
        for batch in pipeline:
            assert (batch.x == TABLE[batch.indices]).all()


def test_what_zarr_folders_lack(zarr_folder, tmp_path):
    group = tmp_path / "group.zarr"
    for path, error, named in (
        (group, ArgumentError, r"names no array; .* its arrays are inner, other|other, inner"),
        (f"{group}:/z", ArgumentError, "has no array 'z'"),
        (f"{zarr_folder}:/z", ArgumentError, "which is an array itself"),
        (tmp_path / "none.zarr", ReadError, "No such file"),
    ):
        with pytest.raises(error, match=f"^ArrayReader: .*{named}"):
            ArrayReader(x=path, batch_size=2)
    (tmp_path / "bad.zarr").mkdir()
    with pytest.raises(DecodeError, match=r"bad\.zarr cannot be opened as an array or a group of zarr"):
        ArrayReader(x=tmp_path / "bad.zarr", batch_size=2)


def test_damaged_chunks_are_named(zarr_folder):
    for chunk in zarr_folder.joinpath("c").rglob("*"):
        if chunk.is_file():
            chunk.write_bytes(b"damaged")
    with pytest.raises(ReadError, match=r"^ArrayReader: x: rows of .*some\.zarr.* cannot be read: "):
        epoch(x=zarr_folder)


# Both


class Recorded:
    """Records its requests."""

    shape, dtype, name = TABLE.shape, TABLE.dtype, "/x"

    def __init__(self):
        self.requests = []

    def __getitem__(self, chosen):
        self.requests.append(chosen)
        return TABLE[chosen]


class Dataset(Recorded):
    """As a dataset of h5py."""

    file = SimpleNamespace(filename="somewhere.h5")
    read_direct = None


class Array(Recorded):
    """As an array of zarr."""

    store = None

    @property
    def oindex(self):
        return self


@pytest.mark.parametrize("kind", [Dataset, Array])
def test_a_batch_is_one_request_of_sorted_rows_each_once(kind):
    array = kind()
    rows = RequestedRows("Test", "x", array)
    found = rows.take_rows(np.array([9, 3, 3, 40]))
    assert (found == TABLE[[9, 3, 3, 40]]).all()
    assert [chosen.tolist() for chosen in array.requests] == [[3, 9, 40]]
    array.requests.clear()
    assert (rows.take_rows(np.array([5, 4, 6])) == TABLE[[5, 4, 6]]).all()
    assert array.requests == [slice(4, 7)]
    array.requests.clear()
    found = rows.take(Places(np.array([[10], [12], [30]]), (4,)))
    assert (found == TABLE[np.array([[10], [12], [30]]) + np.arange(4)]).all()
    assert [chosen.tolist() for chosen in array.requests] == [[10, 11, 12, 13, 14, 15, 30, 31, 32, 33]]
    array.requests.clear()
    assert rows.take_rows(np.zeros(0, np.int64)).shape == (0, 6, 4)
    assert array.requests == []


def test_requests_to_one_file_do_not_overlap():
    # Two requests at once would meet here.
    meeting = threading.Barrier(2, timeout=0.5)
    met = []

    class Watched(Dataset):
        def __getitem__(self, chosen):
            with suppress(threading.BrokenBarrierError):
                meeting.wait()
                met.append(chosen)
            return super().__getitem__(chosen)

    rows = [RequestedRows("Test", name, Watched()) for name in "xy"]
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda one: one.take_rows(np.arange(3)), rows))
    assert all((one == TABLE[:3]).all() for one in found)
    assert met == []


@pytest.mark.parametrize(("package", "ending"), [("h5py", ".h5"), ("zarr", ".zarr")])
def test_a_missing_package_is_named(tmp_path, monkeypatch, package, ending):
    monkeypatch.setitem(sys.modules, package, None)
    path = tmp_path / f"x{ending}"
    with pytest.raises(
        MissingPackageError, match=f"^ArrayReader: x is .*, and the package {package} is not inst"
    ):
        ArrayReader(x=path, batch_size=2)
