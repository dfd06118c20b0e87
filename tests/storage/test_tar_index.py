"""The index of a tar: formats, damage, what is refused, and the file that keeps it."""

import io
import os
import random
import re
import struct
import subprocess
import sys
import tarfile
import zlib

import numpy as np
import pytest
from tars import write_tar

from highway._core.records.checksum import crc32c
from highway._core.tar import members
from highway.errors import ArgumentError, EmptyDatasetError, ReadError, TarError, WriteError
from highway.storage import tar_index
from highway.storage.shard_names import shard_paths
from highway.storage.tar_index import TarIndex, indexed

FORMATS = {"ustar": tarfile.USTAR_FORMAT, "GNU": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}
MEMBERS = [
    ("cat/0001.jpg", b"a" * 700),
    ("cat/0001.cls", b"3"),
    ("empty.txt", b""),
    ("whole.bin", bytes(512)),
    ("a" * 60 + "/" + "b" * 60 + "/" + "c" * 30 + ".jpg", b"long"),
]


def listed(index):
    with open(index.path, "rb") as file:
        contents = file.read()
    headers = [contents[start - members.HEADER : start] for start in index.starts.tolist()]
    assert index.checks.tolist() == [crc32c(header, 0) for header in headers]
    return [
        (os.fsdecode(index.name(number)), contents[start : start + size])
        for number, (start, size) in enumerate(zip(index.starts.tolist(), index.sizes.tolist(), strict=True))
    ]


@pytest.mark.parametrize("format", FORMATS)
def test_members_of_every_format(tmp_path, format):
    found = list(MEMBERS)
    if format != "ustar":
        found += [("d/" * 150 + "e.jpg", b"very long"), ("größe/ö.jpg", b"umlaut")]
    path = write_tar(tmp_path / "a.tar", found, FORMATS[format])
    (index,) = indexed([str(path)], "Test")
    assert listed(index) == found


def test_pax_header_with_a_size_and_a_global_header(tmp_path):
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT, pax_headers={"comment": "all of it"}) as tar:
        info = tarfile.TarInfo("a.jpg")
        info.size = 9
        info.pax_headers = {"size": "9", "mtime": "1.5", "note": "ä=1\nsecond line"}
        tar.addfile(info, io.BytesIO(b"123456789"))
    (index,) = indexed([str(path)], "Test")
    assert listed(index) == [("a.jpg", b"123456789")]


@pytest.mark.parametrize("format", ["gnu", "pax", "ustar", "v7"])
def test_tars_of_the_program(tmp_path, format):
    folder = tmp_path / "data"
    (folder / "cat").mkdir(parents=True)
    for name in ("cat/1.jpg", "cat/1.cls", "2.jpg"):
        (folder / name).write_bytes(name.encode() * 100)
    path = tmp_path / "a.tar"
    command = ["tar", f"--format={format}", "--sort=name", "-C", str(folder), "-cf", str(path), "."]
    subprocess.run(command, check=True, timeout=60)
    (index,) = indexed([str(path)], "Test")
    assert sorted(name for name, _ in listed(index)) == ["./2.jpg", "./cat/1.cls", "./cat/1.jpg"]
    assert all(contents == name[2:].encode() * 100 for name, contents in listed(index))


def test_a_number_in_base_256(tmp_path):
    # tarfile writes sizes of 8 GiB and more so; any size may be.
    info = tarfile.TarInfo("a.jpg")
    info.size = 5
    header = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    header[124:136] = b"\x80" + (5).to_bytes(11, "big")
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    path = tmp_path / "a.tar"
    path.write_bytes(bytes(header) + b"hello" + bytes(507) + bytes(1024))
    (index,) = indexed([str(path)], "Test")
    assert listed(index) == [("a.jpg", b"hello")]


# Damage


def test_a_tar_cut_at_any_byte(tmp_path):
    path = write_tar(tmp_path / "a.tar", [*MEMBERS, ("d/" * 60 + "e.jpg", b"x" * 600)])
    contents = path.read_bytes()
    whole = members.Members(lambda at, size: contents[at : at + size], len(contents))
    starts, sizes, *_ = whole.arrays()
    fine = 0
    for cut in range(len(contents)):
        kept = contents[:cut]
        found = members.Members(lambda at, size, kept=kept: kept[at : at + size], cut)
        if found.status == members.END:
            # Only where every member is whole; padding and end may be missing.
            begun = int((starts - 512 < cut).sum())
            assert len(found) == begun
            assert (starts[:begun] + sizes[:begun] <= cut).all()
            fine += 1
        else:
            assert found.status in (members.CUT_HEADER, members.CUT_MEMBER, members.CUT_AFTER)
    assert 1024 < fine < len(contents) - 2000


@pytest.mark.parametrize("cut", [700, 1100, 1000])
def test_the_error_of_a_cut_tar_names_it_and_the_place(tmp_path, cut):
    path = write_tar(tmp_path / "a.tar", MEMBERS)
    os.truncate(path, cut)
    with pytest.raises(
        TarError, match=rf"Test: '.*a\.tar' is cut off: it ends after {cut} bytes, in the member "
    ):
        indexed([str(path)], "Test")
    path = write_tar(tmp_path / "b.tar", MEMBERS)
    os.truncate(path, 1536 + 100)
    with pytest.raises(TarError, match=r"in the header at byte 1536"):
        indexed([str(path)], "Test")


def test_a_tar_without_its_end_is_reported(tmp_path, caplog):
    path = write_tar(tmp_path / "a.tar", MEMBERS[:1])
    os.truncate(path, 512 + 700)
    (index,) = indexed([str(path)], "Test")
    assert listed(index) == MEMBERS[:1]
    assert "ends without the mark that ends a tar: all of its 1 members are whole" in caplog.text
    caplog.clear()
    os.truncate(path, 512 + 1024 + 300)
    indexed([str(path)], "Test")
    assert not caplog.records


def test_flipped_bits_of_a_header_are_found(tmp_path):
    path = write_tar(tmp_path / "a.tar", MEMBERS, tarfile.USTAR_FORMAT)
    contents = path.read_bytes()
    # Checksums do not notice what sums do not: a lower bit of the checksum's own padding.
    for place in random.Random(0).sample([*range(148), *range(156, 512)], 200):
        damaged = bytearray(contents)
        damaged[place] ^= 1 << place % 8
        damaged = bytes(damaged)
        found = members.Members(lambda at, size, damaged=damaged: damaged[at : at + size], len(damaged))
        assert found.status == members.CHECKSUM
        assert found.header == 0


@pytest.mark.parametrize("seed", range(20))
def test_any_bytes_end_in_an_answer(seed):
    rng = random.Random(seed)
    base = io.BytesIO()
    with tarfile.open(fileobj=base, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, text in [*MEMBERS, ("x/" * 120 + "ü.jpg", b"y")]:
            info = tarfile.TarInfo(name)
            info.size = len(text)
            tar.addfile(info, io.BytesIO(text))
    contents = bytearray(base.getvalue())
    for _ in range(200):
        damaged = bytearray(contents)
        for _ in range(rng.randrange(1, 5)):
            damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        # With a right checksum, so that the other checks have to find it.
        for at in range(0, len(damaged) - 511, 512):
            if damaged[at + 257 : at + 262] == b"ustar":
                total = sum(damaged[at : at + 148]) + 256 + sum(damaged[at + 156 : at + 512])
                damaged[at + 148 : at + 156] = b"%06o\0 " % total
        damaged = bytes(damaged[: rng.randrange(len(damaged))])
        found = members.Members(lambda at, size, kept=damaged: kept[at : at + size], len(damaged))
        starts, sizes, ends, _, text = found.arrays()
        assert (starts + sizes <= len(damaged)).all()
        assert (sizes >= 0).all() and (np.diff(ends) >= 0).all() and (not len(ends) or ends[-1] == len(text))


def test_joined_tars_are_refused(tmp_path):
    one = write_tar(tmp_path / "a.tar", MEMBERS)
    one.write_bytes(one.read_bytes() * 2)
    with pytest.raises(TarError, match=r"has more at byte \d+, after its end"):
        indexed([str(one)], "Test")


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (tarfile.LNKTYPE, "a hard link"),
        (tarfile.SYMTYPE, "a symbolic link"),
        (tarfile.FIFOTYPE, "a FIFO"),
        (tarfile.CHRTYPE, "a device"),
        (tarfile.GNUTYPE_SPARSE, "a sparse file"),
        (b"M", "a part of a file that began in another tar"),
        (b"Q", "of the unknown type 'Q'"),
    ],
)
def test_other_members_are_refused_by_name(tmp_path, kind, text):
    path = tmp_path / "a.tar"
    info = tarfile.TarInfo("cat/link.jpg")
    info.type, info.linkname = kind, "cat/1.jpg"
    path.write_bytes(info.tobuf(tarfile.GNU_FORMAT) + bytes(1024))
    with pytest.raises(TarError, match=f"has 'cat/link.jpg' at byte 0, which is {text}; expected files"):
        indexed([str(path)], "Test")


def test_sparse_files_of_pax_are_refused(tmp_path):
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        info = tarfile.TarInfo("a.jpg")
        info.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.name": "a.jpg"}
        tar.addfile(info)
    with pytest.raises(TarError, match="which is a sparse file"):
        indexed([str(path)], "Test")


@pytest.mark.parametrize(("mode", "name"), [("gz", "gzip"), ("bz2", "bzip2"), ("xz", "xz")])
def test_compressed_tars_are_refused(tmp_path, mode, name):
    path = tmp_path / "a.tar"
    with tarfile.open(path, f"w:{mode}") as tar:
        tar.addfile(tarfile.TarInfo("a.jpg"))
    with pytest.raises(TarError, match=rf"is compressed \({name}\).*unpack it once"):
        indexed([str(path)], "Test")


@pytest.mark.parametrize(
    ("contents", "text"),
    [(b"", "is empty"), (b"x" * 2000, "no tar: the header at byte 0"), (b"P" * 40, "cut off")],
)
def test_other_files_are_refused(tmp_path, contents, text):
    path = tmp_path / "a.tar"
    path.write_bytes(contents)
    with pytest.raises(TarError, match=text):
        indexed([str(path)], "Test")


@pytest.mark.parametrize(
    "record",
    [
        b"x path=a\n",
        b"99 path=a\n",
        b"9 path=\n0",
        b"8 path=a\n",
        b"11 pathx a\n",
        b"13 size=12x4\n",
        b"9 path=\0\n",
    ],
)
def test_damaged_pax_headers(record):
    info = tarfile.TarInfo("PaxHeaders/a")
    info.type, info.size = tarfile.XHDTYPE, len(record)
    contents = info.tobuf(tarfile.USTAR_FORMAT) + record.ljust(512, b"\0") + bytes(1024)
    found = members.Members(lambda at, size: contents[at : at + size], len(contents))
    assert found.status == members.EXTENDED


def test_missing_files_and_folders(tmp_path):
    with pytest.raises(ReadError, match=r"cannot be read: No such file"):
        indexed([str(tmp_path / "none.tar")], "Test")
    with pytest.raises(ReadError, match=r"cannot be read: Is a directory"):
        indexed([str(tmp_path)], "Test")


def test_what_a_reading_function_raises_comes_out():
    def read(at, size):
        raise KeyError("away")

    with pytest.raises(KeyError, match="away"):
        members.Members(read, 10_000)


# The file that keeps the index


def test_an_index_is_kept_and_made_again_when_the_tar_changes(tmp_path, monkeypatch):
    path = write_tar(tmp_path / "a.tar", MEMBERS)
    (first,) = indexed([str(path)], "Test")
    kept = tmp_path / "a.tar.index"
    assert kept.exists()
    monkeypatch.setattr(tar_index, "scanned_tar", None)
    (again,) = indexed([str(path)], "Test")
    assert listed(again) == listed(first) == MEMBERS
    monkeypatch.undo()
    write_tar(path, MEMBERS[:2])
    (changed,) = indexed([str(path)], "Test")
    assert listed(changed) == MEMBERS[:2]
    # The same size, another time.
    write_tar(path, [("dog/0001.jpg", b"a" * 700), MEMBERS[1]])
    os.utime(path, ns=(1, 1))
    (changed,) = indexed([str(path)], "Test")
    assert changed.name(0) == b"dog/0001.jpg"


def test_a_relative_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_tar(tmp_path / "a.tar", MEMBERS)
    indexed(["a.tar"], "Test")
    assert sorted(os.listdir()) == ["a.tar", "a.tar.index"]


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "other"])
def test_a_damaged_index_is_made_again(tmp_path, damage):
    path = write_tar(tmp_path / "a.tar", MEMBERS)
    indexed([str(path)], "Test")
    kept = tmp_path / "a.tar.index"
    contents = bytearray(kept.read_bytes())
    if damage == "cut":
        contents = contents[:-1]
    elif damage == "flipped":
        # The place of the first member.
        contents[44] ^= 1
    else:
        contents = bytearray() if damage == "empty" else bytearray(b"something else")
    kept.write_bytes(contents)
    (index,) = indexed([str(path)], "Test")
    assert listed(index) == MEMBERS
    found = os.stat(path)
    assert TarIndex.unpacked(str(path), found.st_size, found.st_mtime_ns, kept.read_bytes()) is not None


def test_a_folder_for_the_indexes(tmp_path):
    paths = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        paths.append(str(write_tar(tmp_path / name / "x.tar", [(f"{name}.jpg", b"1")])))
    for _ in range(2):
        one, other = indexed(paths, "Test", str(tmp_path / "kept"))
        assert (one.name(0), other.name(0)) == (b"a.jpg", b"b.jpg")
    assert len(os.listdir(tmp_path / "kept")) == 2
    assert os.listdir(tmp_path / "a") == ["x.tar"]
    with pytest.raises(WriteError):
        indexed([paths[0]], "Test", paths[1])


def test_a_folder_that_cannot_be_written_to_is_no_error(tmp_path, monkeypatch, caplog):
    path = write_tar(tmp_path / "a.tar", MEMBERS)

    def refuse(path, write, owner):
        raise WriteError(f"{owner}: {path!r} cannot be written: Read-only file system")

    monkeypatch.setattr(tar_index, "write_whole", refuse)
    with caplog.at_level("INFO", "highway.storage"):
        (index,) = indexed([str(path)], "Test")
    assert listed(index) == MEMBERS
    assert "is not kept (use index_dir=FOLDER)" in caplog.text


def test_a_tar_that_changes_while_it_is_indexed(tmp_path, monkeypatch):
    path = write_tar(tmp_path / "a.tar", MEMBERS)
    scan = tar_index.scanned_tar

    def changing(*arguments):
        found = scan(*arguments)
        os.utime(path, ns=(5, 5))
        return found

    monkeypatch.setattr(tar_index, "scanned_tar", changing)
    with pytest.raises(TarError, match="was changed while it was indexed"):
        indexed([str(path)], "Test")
    assert not (tmp_path / "a.tar.index").exists()


MILLION = """
import re, sys, time
from highway.storage.tar_index import indexed
def most():
    with open("/proc/self/status") as file:
        return int(re.search(r"VmHWM:\\s+(\\d+)", file.read())[1]) / 1024
before = most()
for _ in range(2):
    began = time.perf_counter()
    (index,) = indexed([sys.argv[1]], "Test")
    print(f"{len(index)} members: {time.perf_counter() - began:.2f} s, {most() - before:.0f} MiB at most")
assert index.name(len(index) - 1) == b"n/00999999.jpg"
assert index.starts[-1] == (len(index) - 1) * 512 + 512 and not index.sizes.any()
"""


def test_a_million_members(tmp_path):
    """Found within seconds, and faster from the file that keeps the index."""
    info = tarfile.TarInfo("n/00000000.jpg")
    header = np.frombuffer(info.tobuf(tarfile.USTAR_FORMAT), np.uint8)
    count, block = 1_000_000, 50_000
    places = 10 ** np.arange(7, -1, -1)
    with open(tmp_path / "a.tar", "wb") as file:
        for first in range(0, count, block):
            headers = np.tile(header, (block, 1))
            headers[:, 2:10] = ord("0") + np.arange(first, first + block)[:, None] // places % 10
            headers[:, 148:156] = ord(" ")
            sums = headers.sum(axis=1, dtype=np.int64)[:, None]
            headers[:, 148:154] = ord("0") + sums // 8 ** np.arange(5, -1, -1) % 8
            file.write(headers)
        file.write(bytes(1024))
    try:
        done = subprocess.run(
            [sys.executable, "-c", MILLION, tmp_path / "a.tar"], capture_output=True, text=True, timeout=200
        )
    finally:
        (tmp_path / "a.tar").unlink()
    assert done.returncode == 0, done.stderr
    # pytest -rP shows it.
    print(done.stdout)
    found, kept = (
        re.fullmatch(r"1000000 members: (.*) s, (.*) MiB at most", line) for line in done.stdout.splitlines()
    )
    assert float(found[2]) < 300 and float(kept[1]) < float(found[1]) < 60


# Names of shards


def test_names_of_shards(tmp_path):
    for number in range(12):
        (tmp_path / f"t-{number:02}.tar").touch()
    (tmp_path / "odd-{1,2}[x].tar").touch()
    names = [str(tmp_path / f"t-{number:02}.tar") for number in range(12)]
    assert shard_paths(str(tmp_path / "t-{00..11}.tar"), "Test") == names
    assert shard_paths(tmp_path / "t-*.tar", "Test") == names
    assert shard_paths([tmp_path / "t-{03,01}.tar", names[0]], "Test") == [names[3], names[1], names[0]]
    assert shard_paths(tmp_path / "t-{0*,11}.tar", "Test") == [*names[:10], names[11]]
    assert shard_paths(tmp_path / "odd-{1,2}[x].tar", "Test") == [str(tmp_path / "odd-{1,2}[x].tar")]


@pytest.mark.parametrize("paths", [[], "none-*.tar", ["none-*.tar"]])
def test_no_shards(paths, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(EmptyDatasetError, match="Test: paths"):
        shard_paths(paths, "Test")


@pytest.mark.parametrize(
    "paths", [3, None, [3], ["a.tar", "a.tar"], ["a.tar", "./a.tar"], "a-{1..1}{1,1}.tar"]
)
def test_wrong_names_of_shards(paths):
    with pytest.raises(ArgumentError, match="Test: paths"):
        shard_paths(paths, "Test")


def test_the_format_of_the_index_is_fixed():
    """A change of it needs another version: old files must not be read as new ones."""
    index = TarIndex(
        "a.tar",
        3,
        4,
        *(np.array([number]) for number in (512, 2, 5)),
        np.array([6], np.uint32),
        np.frombuffer(b"a.jpg", np.uint8),
    )
    packed = index.packed()
    assert packed[:8] == b"HWTAR\0\0\2"
    assert struct.unpack_from("<4q", packed, 8) == (3, 4, 1, 5)
    assert packed[-9:] == b"\6\0\0\0a.jpg"
    assert len(packed) == 44 + 28 + 5


@pytest.mark.parametrize(
    ("starts", "sizes", "ends"),
    [
        ([-1, 1536], [4, 4], [5, 10]),
        ([512, 1 << 62], [4, 4], [5, 10]),
        ([512, 1536], [-4, 4], [5, 10]),
        ([512, 1536], [4, 2**63 - 1], [5, 10]),
        ([512, 1536], [4, 600], [5, 10]),
        ([512, 1536], [4, 4], [7, 5]),
        ([512, 1536], [4, 4], [-1, 10]),
        ([512, 1536], [4, 4], [5, 9]),
    ],
)
def test_an_index_that_leads_out_of_its_tar_is_none(starts, sizes, ends):
    text = np.frombuffer(b"a.jpgb.jpg", np.uint8)

    def unpacked(starts, sizes, ends):
        arrays = (np.array(each) for each in (starts, sizes, ends))
        made = TarIndex("a.tar", 2048, 4, *arrays, np.zeros(2, np.uint32), text)
        return TarIndex.unpacked("a.tar", 2048, 4, made.packed())

    assert unpacked([512, 1536], [4, 512], [5, 10]) is not None
    assert unpacked(starts, sizes, ends) is None


@pytest.mark.parametrize(("count", "letters"), [(-1, 128), (3, 17), (4, -12)])
def test_an_index_with_impossible_counts_is_none(count, letters):
    arrays = bytes(100)
    head = struct.pack("<8sqqqqI", b"HWTAR\0\0\2", 2048, 4, count, letters, zlib.crc32(arrays))
    assert TarIndex.unpacked("a.tar", 2048, 4, head + arrays) is None


def test_no_tars_have_no_indexes():
    assert indexed([], "Test") == []
