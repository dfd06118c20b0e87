"""The benchmarks run, say who is missing or fails, and count no image that was not returned."""

import argparse
import dataclasses
import importlib
import importlib.util
import json
import os
import random
import re
import shutil
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from pictures import jpeg_bytes, photograph
from repository import ROOT
from voc_folders import annotation, thing, voc_folder

import highway

# Long, and not about the interpreter.
pytestmark = pytest.mark.once

BENCHMARKS = ROOT / "benchmarks"
RESULTS = BENCHMARKS / "results"
PARTICIPANTS = BENCHMARKS / "participants"
FILES = 12
CLASSES = 3


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Twelve photographs in three class folders."""
    directory = tmp_path_factory.mktemp("photos")
    for number in range(FILES):
        target = directory / f"class{number * CLASSES // FILES}"
        target.mkdir(exist_ok=True)
        picture = photograph(90 + number, 130 - number, seed=number)
        (target / f"{number:02}.jpg").write_bytes(jpeg_bytes(picture))
    return directory


@pytest.fixture
def participants(monkeypatch):
    """Imports modules of benchmarks/participants by name; they are forgotten afterwards."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(PARTICIPANTS)
    yield importlib.import_module
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(PARTICIPANTS)):
            del sys.modules[name]


@pytest.fixture
def benchmarks(monkeypatch):
    """Imports modules of benchmarks/ by name; they are forgotten afterwards."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(BENCHMARKS)
    yield importlib.import_module
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(BENCHMARKS)):
            del sys.modules[name]


def run(script, *arguments, path=()):
    """A script of benchmarks/ in a fresh interpreter that can import highway."""
    environment = dict(os.environ)
    environment["PYTHONPATH"] = os.pathsep.join([*map(str, path), str(Path(highway.__file__).parents[1])])
    command = [sys.executable, str(BENCHMARKS / script), *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)


def test_queue_hop_measures(tmp_path):
    done = run(
        "queue_hop.py", "--count", 20, "--rounds", 1, "--stages", 0, 2, "--json", tmp_path / "hop.json"
    )
    assert done.returncode == 0, done.stderr
    figures = json.loads((tmp_path / "hop.json").read_text())
    assert {"cpu", "python", "numpy", "highway"} <= set(figures["machine"])
    for name in ("queues full, one more stage", "one under way, one more stage", "queue alone, two threads"):
        assert len(figures["microseconds"][name]) == 2
        assert name in done.stdout
    assert run("queue_hop.py", "--stages", 3).returncode == 2


def test_views_are_measured(folder, tmp_path):
    result = tmp_path / "views.json"
    done = run("views.py", folder, "--batch", 4, "--rounds", 1, "--seconds", 0.01, "--json", result)
    assert done.returncode == 0, done.stderr
    figures = json.loads(result.read_text())
    assert {"cpu", "highway"} <= set(figures["machine"])
    assert [*figures["views"]] == ["one", "two", "ten"]
    assert figures["views"]["one"]["time_ratio"] == 1
    assert all(row["milliseconds"] > 0 and row["cpu"] > 0 for row in figures["views"].values())
    assert run("views.py", folder, "--rounds", 0).returncode == 2


def test_sequences_are_measured(tmp_path):
    result = tmp_path / "sequences.json"
    done = run(
        "sequences.py", "--documents", 9, "--longest", 20, "--length", 8, "--rounds", 1, "--json", result
    )
    assert done.returncode == 0, done.stderr
    figures = json.loads(result.read_text())
    assert {"cpu", "python", "numpy", "highway"} <= set(figures["machine"])
    assert {
        f"{name} {dtype}" for name in ("pack", "pad", "crop") for dtype in ("uint16", "int32", "int64")
    } == set(figures["cases"])
    assert all(case["of_copy"] > 0 and case["as_numpy"] > 0 for case in figures["cases"].values())
    assert run("sequences.py", "--rounds", 0).returncode == 2


@pytest.mark.parametrize(
    "script",
    [
        "peers.py",
        "scaling.py",
        "python_share.py",
        "cold.py",
        "startup.py",
        "memory.py",
        "remote.py",
        "formats.py",
        "pictures.py",
        "participants/run.py",
        "participants/steady.py",
        "participants/one_epoch.py",
    ],
)
def test_help_tells_the_options(script):
    done = run(script, "--help")
    assert done.returncode == 0, done.stderr
    assert "--threads" in done.stdout


@pytest.mark.parametrize(
    "script",
    [
        *("peers.py", "scaling.py", "python_share.py", "cold.py"),
        *("startup.py", "memory.py", "remote.py", "formats.py", "pictures.py", "dataset_reader.py"),
    ],
)
def test_a_folder_without_photographs_is_one_sentence(script, tmp_path):
    done = run(script, tmp_path)
    assert done.returncode == 1
    assert done.stderr.strip().endswith("expected class folders of pictures")
    assert "Traceback" not in done.stderr


def test_peers_measures_highway_and_the_limit(folder, tmp_path):
    result = tmp_path / "result.json"
    options = [
        "--only",
        "highway,spdl",
        "--rounds",
        "1",
        "--seconds",
        "0.05",
        "--warmup",
        "0.05",
        "--threads",
        "1",
    ]
    done = run("peers.py", folder, *options, "--json", result)
    assert done.returncode == 0, done.stderr
    record = json.loads(result.read_text())
    assert record["photographs"]["files"] == FILES
    assert str(folder) not in result.read_text()
    for job in ("fit", "rrc"):
        rows = {row["label"]: row for row in record["jobs"][job]["rows"]}
        assert rows["limit"]["status"] == "ok", rows["limit"]["reason"]
        assert rows["highway"]["status"] == "ok", rows["highway"]["reason"]
        assert rows["highway"]["images_per_second"] > 0
        assert rows["highway"]["rounds"][0]["versions"]["numpy"] == np.__version__
        # who cannot be imported is in the table, with the reason
        if rows["spdl"]["status"] == "missing":
            assert "spdl: missing: no interpreter that was given imports spdl.io" in done.stdout


def test_peers_without_photographs_says_what_to_give(monkeypatch):
    monkeypatch.delenv("HIGHWAY_BENCH_DATA", raising=False)
    done = run("peers.py")
    assert done.returncode == 2
    assert (
        "no photographs: give DIR, a folder of class folders of JPEGs, or set HIGHWAY_BENCH_DATA"
        in done.stderr
    )
    done = run("peers.py", "somewhere", "--install")
    assert done.returncode == 2
    assert "--install needs --peers FOLDER" in done.stderr


def test_peers_takes_the_folder_from_the_environment(folder, monkeypatch, tmp_path):
    monkeypatch.setenv("HIGHWAY_BENCH_DATA", str(folder))
    done = run("peers.py", "--peers", tmp_path, "--only", "highway")
    assert done.returncode == 1
    assert f"--peers: {tmp_path} has no environments (NAME/bin/python)" in done.stderr


def test_interpreters_of_a_folder_of_environments(benchmarks, tmp_path, monkeypatch):
    """An environment named after a participant is its own; others serve who has none; Highway is here."""
    subject = benchmarks("subject")
    can = {"pillow": "PIL", "more": "PIL cv2 simplejpeg highway"}
    for name, modules in can.items():
        python = tmp_path / name / "bin" / "python"
        python.parent.mkdir(parents=True)
        # asked as `python -c CODE NAME ...` which of the names it can import
        python.write_text(
            f"#!{sys.executable}\nimport json, sys\n"
            f"print(json.dumps([name in {modules.split()} for name in sys.argv[3:]]))\n"
        )
        python.chmod(0o755)
    monkeypatch.setenv("PYTHONPATH", str(Path(highway.__file__).parents[1]))
    chosen = subject.choose_interpreters([], tmp_path)
    assert chosen["pillow"] == str(tmp_path / "pillow" / "bin" / "python")
    assert chosen["opencv"] == chosen["simplejpeg"] == str(tmp_path / "more" / "bin" / "python")
    assert chosen["highway"] == sys.executable
    assert chosen["opencv"] != subject.choose_interpreters(["opencv=/nowhere/python"], tmp_path)["opencv"]


def record_of_two_peers():
    """What peers.py writes, made up: rates of three rounds, a peer that failed, and a row that is not counted."""

    def rounds(rates, **more):
        return [
            {"images": 100, "seconds": 1.0, "images_per_second": r, "cpu_seconds": 0.2} | more for r in rates
        ]

    def row(label, rates, **more):
        entry = {"label": label, "status": "ok", "reason": "", "reduced": label.endswith("*"), "variant": ""}
        return entry | {"rounds": rounds(rates, **more)}

    highway = row("highway", [190.0, 200.0, 180.0], peak_megabytes=60.0, others_cores=0.0)
    opencv = row(
        "opencv", [100.0, 80.0, 120.0], versions={"opencv-python-headless": "5.0"}, peak_megabytes=70.0
    )
    grain = row("grain *", [110.0, 110.0, 110.0], peak_megabytes=70.0)
    spdl = row("spdl", []) | {"status": "failed", "reason": "broken decoder"}
    limit = row("limit", [200.0, 210.0, 220.0], libjpeg_turbo=2001005)
    job = {"text": "a job, of two parts", "threads": 2, "rows": [limit, highway, opencv, grain, spdl]}
    machine = {"cpu": "Some CPU", "cores": 2, "system": "Linux 6.1-x", "time": "2026-01-02T03:04:05Z"}
    return {"machine": machine, "photographs": {"files": 3, "mean_kilobytes": 12.3}, "jobs": {"fit": job}}


def test_report_shows_medians_and_ratios_of_rounds(benchmarks):
    report = benchmarks("report")
    text = report.markdown(record_of_two_peers())
    lines = text.splitlines()
    assert "| **Highway** | **190** | 180–200 | 0.95 |  | 2.00 | 60 |  |" in lines
    assert "| OpenCV in threads | 100 | 80–120 | 0.50 | 1.90 | 2.00 | 70 | 5.0 |" in lines
    assert "| libjpeg-turbo alone, in C | 210 | 200–220 | 1.00 | 0.95 | 2.00 |  | 2.1.5 |" in lines
    # the row that gives up quality is faster, and is not the best peer
    assert any(line.startswith("| Grain * | 110 |") for line in lines)
    assert (
        "1.90 times as many images a second as the best peer, OpenCV in threads, and 0.95 of the limit"
        in text
    )
    assert "SPDL: failed: broken decoder" in lines
    assert (
        "3 photographs, 12 KB on average; 2 threads on 2 cores of Some CPU, Linux 6.1, 2026-01-02." in lines
    )


def test_report_goes_into_a_page_between_its_marks(benchmarks, tmp_path):
    report = benchmarks("report")
    record = record_of_two_peers()
    page = tmp_path / "performance.md"
    page.write_text(f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n")
    report.update_page(record, page)
    report.update_page(record, page)
    assert page.read_text() == f"before\n{report.BEGIN}\n{report.markdown(record)}{report.END}\nafter\n"
    page.write_text("no marks\n")
    with pytest.raises(report.ReportError, match="expected one passage between"):
        report.update_page(record, page)


@pytest.mark.parametrize(
    "text", ["", "{}", "[]", '{"machine": {}, "photographs": {}, "jobs": {}}', '{"machine": 1']
)
def test_report_of_another_file_is_one_sentence(tmp_path, text):
    (tmp_path / "odd.json").write_text(text)
    done = run("peers.py", "--report", tmp_path / "odd.json")
    assert done.returncode == 1
    assert done.stderr.strip().endswith("expected the JSON that peers.py writes")
    assert "Traceback" not in done.stderr


def test_published_reasons_have_no_paths(benchmarks):
    cut = benchmarks("report").without_paths
    assert cut("OSError: /home/somebody/peers/lib/libx.so.1: not found") == "OSError: libx.so.1: not found"
    assert (
        cut("/tmp/photos/a/1.jpg: broken; expected 1/2 of /dev/null") == "1.jpg: broken; expected 1/2 of null"
    )


def png_texts(path):
    """Keyword and text of every tEXt chunk of a PNG, whose checksums must be right."""
    data = path.read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    texts, place = {}, 8
    while place < len(data):
        length, kind = struct.unpack_from(">I4s", data, place)
        body = data[place + 8 : place + 8 + length]
        assert zlib.crc32(kind + body) == struct.unpack_from(">I", data, place + 8 + length)[0]
        if kind == b"tEXt":
            keyword, _, text = body.partition(b"\0")
            texts[keyword.decode()] = text.decode()
        place += 12 + length
    return texts


def test_results_agree_with_each_other_and_with_the_documentation(benchmarks):
    """Tables, plot and page are of the one run that peers.json is of."""
    report = benchmarks("report")
    record = report.read_record(RESULTS / "peers.json")
    tables = report.markdown(record)
    assert (RESULTS / "peers.md").read_text(encoding="utf-8") == tables
    page = (ROOT / "docs" / "performance.md").read_text(encoding="utf-8")
    assert f"{report.BEGIN}\n{tables}{report.END}" in page
    assert "](../benchmarks/results/peers.png)" in page
    assert "](benchmarks/results/peers.png)" in (ROOT / "README.md").read_text(encoding="utf-8")
    assert png_texts(RESULTS / "peers.png")["Description"] == report.digest(record)
    names = ["peers.json", "peers.md", "peers.png", "store.md", "store_plain_memory.md", "transforms.md"]
    assert sorted(path.name for path in RESULTS.iterdir()) == names
    for path in RESULTS.iterdir():
        assert not re.search(rb"/(home|root|tmp|work|usr)/", path.read_bytes()), path.name


@pytest.mark.skipif(importlib.util.find_spec("matplotlib") is None, reason="matplotlib is not installed here")
def test_plot_is_drawn_from_the_record(benchmarks, tmp_path):
    report = benchmarks("report")
    record = record_of_two_peers()
    report.write_results(record, tmp_path / "results")
    assert png_texts(tmp_path / "results" / "peers.png")["Description"] == report.digest(record)
    without = record_of_two_peers()
    without["jobs"]["fit"]["rows"] = without["jobs"]["fit"]["rows"][2:3]
    report.draw(without, tmp_path / "lonely.png")


def test_install_leaves_a_working_environment_alone(benchmarks, tmp_path, monkeypatch):
    """It is made when missing, made for other versions, or broken; a failure names what the system lacks."""
    install_peers, registry = benchmarks("install_peers"), benchmarks("participants.registry")
    peer = dataclasses.replace(
        registry.PARTICIPANTS["pillow"], needs=("json",), requirements=("numpy", "Pillow-SIMD==1.0")
    )
    monkeypatch.setattr(install_peers, "PEERS", (peer,))
    monkeypatch.setattr(install_peers.venv, "create", lambda folder, **_: folder.mkdir(parents=True))
    ran, broken = [], []

    def command(words, timeout=0):
        ran.append(words[1:])
        return subprocess.CompletedProcess(words, int(words[2] in broken), "", "fatal: jpeglib.h not found")

    monkeypatch.setattr(install_peers, "run", command)

    def commands():
        words = [" ".join(one[1:3]) if one[0] == "-m" else "check" for one in ran]
        ran.clear()
        return words

    whole = ["pip install", "pip install", "pip uninstall", "pip install", "check"]
    assert install_peers.install(tmp_path, ["pillow"]) == {}
    assert commands() == whole
    assert install_peers.install(tmp_path, ["pillow"]) == {}
    assert commands() == ["check"]
    newer = dataclasses.replace(peer, requirements=("numpy", "Pillow-SIMD==2.0"))
    monkeypatch.setattr(install_peers, "PEERS", (newer,))
    assert install_peers.install(tmp_path, ["opencv"]) == {}
    assert commands() == []
    assert install_peers.install(tmp_path, ["pillow"]) == {}
    assert commands() == whole
    broken.append("pip")
    (tmp_path / "pillow" / install_peers.STAMP).unlink()
    failure = install_peers.install(tmp_path, ["pillow"])["pillow"]
    assert "pillow: pip install --upgrade pip failed: fatal: jpeglib.h not found; it needs" in failure
    assert failure.endswith("apt-get install build-essential pkg-config libjpeg-dev zlib1g-dev python3-dev")
    assert not install_peers.ready(newer, tmp_path / "pillow")


def test_scaling_measures_and_models(folder, tmp_path):
    result = tmp_path / "result.json"
    quick = ["--rounds", "1", "--seconds", "0.05", "--warmup", "0.05", "--threads", "1,2", "--job", "fit"]
    done = run("scaling.py", folder, *quick, "--cores", "4,64", "--json", result)
    assert done.returncode == 0, done.stderr
    record = json.loads(result.read_text())
    assert set(record["jobs"]["fit"]["highway"]) == {"1", "2"}
    model = record["model"]["fit"]
    costs = model["costs"]
    assert costs["whole"] > costs["system"] >= 0
    assert {"reading", "entropy", "decoding", "gil", "beyond"} <= set(costs)
    assert 0 <= costs["gil_share"] <= 1
    assert set(model["predictions"]) == {"1", "2", "4", "64"}
    assert "model, not measured" in done.stdout


def test_model_takes_the_lowest_of_its_bounds(benchmarks):
    model = benchmarks("scaling_model")
    costs = model.Costs(
        reading=0.1e-3,
        entropy=1e-3,
        decoding=0.5e-3,
        whole=2e-3,
        system=0.2e-3,
        gil=0.1e-3,
        gil_share=0.05,
        bytes_moved=1e6,
        batch_size=16,
    )
    assert costs.beyond == pytest.approx(0.3e-3)
    plenty = model.Memory(of_a_core=5e9, at_most=100e9)
    assert model.predict(costs, plenty, 4) == (pytest.approx(2000), "decoding")
    assert model.predict(costs, plenty, 64) == (pytest.approx(10000), "GIL")
    assert model.turning_point(costs, plenty) == (pytest.approx(20), "GIL")
    little = model.Memory(of_a_core=5e9, at_most=8e9)
    assert model.predict(costs, little, 64) == (pytest.approx(8000), "memory")
    assert model.turning_point(costs, little) == (pytest.approx(16), "memory")
    slow = model.Memory(of_a_core=0.1e9, at_most=8e9)
    assert model.predict(costs, slow, 2) == (pytest.approx(200), "memory")
    assert "the rate grows with the cores up to 16 of them" in model.table(costs, little, [4, 64])
    free = dataclasses.replace(costs, gil=0.0, gil_share=0.0)
    assert model.predict(free, plenty, 64) == (pytest.approx(32000), "decoding")


def test_model_counts_bytes_by_the_shapes_of_the_job(benchmarks):
    model = benchmarks("scaling_model")
    pixels = 240 * 320 * 3
    assert model.bytes_moved("fit", 1000) == 3000 + 4 * pixels
    pixels = 224 * 224 * 3
    assert model.bytes_moved("rrc", 0) == (2 + 1 + 8 + 4) * pixels


def test_costs_are_differences_and_the_gil_is_counted_without_disturbance(benchmarks):
    model = benchmarks("scaling_model")

    def loop(milliseconds):
        return {"cpu_seconds": milliseconds * 0.1, "images": 100, "bytes": 100_000}

    loops = [{"read": loop(0.1), "full-entropy": loop(0.7), "full": loop(1.0)}]
    taken = {
        "images": 1000,
        "user_seconds": 1.1,
        "system_seconds": 0.1,
        "gil_questions": 200,
        "gil_waits": 10,
    }
    for seconds in (0.6, 6.0):  # 2 cores to itself, and hardly any
        costs = model.median_costs("fit", 2, loops, [taken | {"seconds": seconds}])
        assert costs.reading == pytest.approx(0.1e-3)
        assert costs.entropy == pytest.approx(0.6e-3)
        assert costs.decoding == pytest.approx(0.3e-3)
        assert costs.whole == pytest.approx(1.2e-3)
        assert costs.system == pytest.approx(0.1e-3)
        assert costs.gil_share == pytest.approx(0.05)
        assert costs.gil == pytest.approx(0.05 * 0.6e-3)
        assert costs.bytes_moved == 3 * 1000 + 4 * 240 * 320 * 3


def test_memory_bandwidth_is_measured(benchmarks):
    model = benchmarks("scaling_model")
    assert model.memory_bandwidth(2, 0.01) > 1e6


def test_bare_loop_does_no_more_than_it_is_told(benchmarks, folder, tmp_path):
    """Every mode goes over the files it was given, once where it is told so; the same files, so the same bytes."""
    limit, jobs = benchmarks("limit"), benchmarks("participants.jobs")
    paths, _, _ = jobs.list_files(str(folder))
    loop = limit.Limit(tmp_path, paths)
    size = sum(os.path.getsize(path) for path in paths)
    for mode in ("read", "full", "window", "full-entropy", "window-entropy"):
        found = loop.measure_once(mode, 2, paths[3:] + paths[:3])
        assert (found["images"], found["bytes"], found["warnings"]) == (FILES, size, 0), mode
    assert loop.measure("full-entropy", 1, 0.01, 0.02)["images"] > 0
    with pytest.raises(limit.LimitError, match="usage: bare_decode MODE THREADS"):
        loop.measure("entropy", 1, 0.01, 0.01)
    with pytest.raises(limit.LimitError, match="No such file"):
        loop.measure_once("read", 1, [*paths, str(folder / "missing.jpg")])


def test_bare_loop_without_a_compiler_says_what_to_install(benchmarks, monkeypatch, tmp_path):
    limit = benchmarks("limit")
    monkeypatch.setenv("CC", "/nowhere/cc -m64")
    with pytest.raises(limit.LimitError, match="/nowhere/cc was not found; install a C compiler"):
        limit.compile_c(limit.SOURCE, tmp_path / "bare_decode")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(limit.LimitError, match="pkg-config was not found: apt-get install"):
        limit.Limit(tmp_path, [])


GIL_HOLDER = """
import sys, threading
sys.path.insert(0, sys.argv[1])
from steady import Probe
probe = Probe(sys.argv[2])
ended = threading.Event()
def hold():
    while not ended.is_set():
        sum(range(1000))
thread = threading.Thread(target=hold)
def ask():
    probe.start()
    threading.Event().wait(0.3)
    found = probe.stop()
    return found["gil_waits"] / found["gil_questions"]
# Where others have the processors, an answer may come late, or the thread may not run: what counts is the clearest.
idle = min(ask() for _ in range(5))
thread.start()
busy = max(ask() for _ in range(5))
ended.set()
thread.join()
print(idle, busy)
"""


def test_probe_tells_a_held_gil_from_an_idle_one(benchmarks, tmp_path):
    library = tmp_path / "gil_probe.so"
    limit, model = benchmarks("limit"), benchmarks("scaling_model")
    limit.compile_c(model.PROBE, library, "-shared", "-fPIC", "-pthread")
    command = [sys.executable, "-c", GIL_HOLDER, str(PARTICIPANTS), str(library)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    idle, busy = map(float, done.stdout.split())
    assert idle < 0.5 < busy


SAMPLES = """\
 9811
\t           230c4 [unknown] (/usr/lib/x86_64-linux-gnu/libjpeg.so.62.3.0)
\t    7f4008014e70 [unknown] ([unknown])

 9811
\t           2e115 combine_avx2 (/a b/highway/_core/jpeg.cpython-311-x86_64-linux-gnu.so)

 9811
\t           2e115 __pyx_pw_7highway_5_core_6philox_9permute (/x/highway/_core/philox.cpython-311-x86_64-linux-gnu.so)

 9812
\tffffffff81a2b3c4 _copy_to_iter ([kernel.kallsyms])
\tffffffff81a2b3c5 filemap_read ([kernel.kallsyms])
\tffffffff81a2b3c6 __x64_sys_read ([kernel.kallsyms])
\t          10e1a1 read (/usr/lib/x86_64-linux-gnu/libc.so.6)

 9812
\tffffffff81a2b3c4 futex_wake ([kernel.kallsyms])
\tffffffff81a2b3c6 __x64_sys_futex ([kernel.kallsyms])

 9812
\tffffffff81a2b3c4 clear_page_erms ([kernel.kallsyms])
\tffffffff81a2b3c6 asm_exc_page_fault ([kernel.kallsyms])

 9812
\t          1234 _PyEval_EvalFrameDefault (/opt/lib/libpython3.11.so.1.0)

 9812
\t          1234 array_dealloc (/v/site-packages/numpy/_core/_multiarray_umath.cpython-311-x86_64-linux-gnu.so)

 9812
\t          1234 __memset_evex_unaligned_erms (/usr/lib/x86_64-linux-gnu/libc.so.6)

 9812
\t          1234 _int_malloc (/usr/lib/x86_64-linux-gnu/libc.so.6)

 9812
\t          1234 __llrint (/usr/lib/x86_64-linux-gnu/libm.so.6)

"""


def test_every_sample_belongs_to_one_place(benchmarks):
    share = benchmarks("python_share")
    counts = share.read_samples(SAMPLES)
    places = {}
    for (place, _, _), count in counts.items():
        places[place] = places.get(place, 0) + count
    assert places == {
        "libjpeg": 1,
        "kernels": 1,
        "wrappers": 1,
        "reading files": 1,
        "waiting": 1,
        "other system": 1,
        "interpreter": 1,
        "NumPy": 1,
        "C library": 2,
        "allocation": 1,
    }
    assert share.python_share(share.shares(counts)) == pytest.approx(5 / 11)
    assert "45.45 %   of 11 samples" in share.table(counts, 2)


def test_python_share_without_perf_says_what_to_install(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    done = run("python_share.py", folder)
    assert done.returncode == 1
    assert "perf was not found; install it" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(shutil.which("perf") is None, reason="perf is not installed here")
def test_python_share_profiles_highway(folder, tmp_path):
    result = tmp_path / "result.json"
    quick = ["--seconds", "0.5", "--warmup", "0.1", "--threads", "1", "--job", "rrc"]
    done = run("python_share.py", folder, *quick, "--json", result)
    if "perf record failed" in done.stderr:
        pytest.skip(f"perf may not look at processes here: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    found = json.loads(result.read_text())["jobs"]["rrc"]
    assert sum(found["shares"].values()) == pytest.approx(1)
    assert found["shares"]["kernels"] > 0
    assert found["images"] > 0


QUICK = ("--photos", 128, "--rounds", 1, "--seconds", 0.05, "--warmup", 0.01, "--threads", 1)


def rows_of(file):
    """The rows of the JSON of formats.py or remote.py, by their names."""
    return {row["label"]: row for row in json.loads(file.read_text())["rows"]}


def test_remote_measures_stores_against_this_machine(folder, tmp_path):
    written = {"--json": tmp_path / "remote.json", "--markdown": tmp_path / "remote.md"}
    few = ("--latency", 0.001, "--prefetch", 60_000, "--shards", 2, "--many", 20, "--scratch", tmp_path)
    done = run("remote.py", folder, *QUICK, *few, *(part for pair in written.items() for part in pair))
    assert done.returncode == 0, done.stderr
    assert written["--markdown"].read_text() == done.stdout
    rows = rows_of(written["--json"])
    peers = {"litData", "mosaicml-streaming"}
    assert set(rows) == peers | {
        *("folder", "folder in S3", "folder in S3, cache", "folder in S3, index"),
        *(
            "tar",
            "tar in S3",
            "tar in S3, cache",
            "tar over HTTP",
            "20 tars in S3",
            "20 tars in S3, indexes here",
        ),
    }
    for name in peers:
        assert (
            rows[name]["status"] == "missing"
            and "no interpreter that was given imports" in rows[name]["reason"]
        )
        assert f"- {name}: missing: " in done.stdout
    for name in set(rows) - peers:
        assert rows[name]["status"] == "ok", rows[name]["reason"]
        (one,) = rows[name]["rounds"]
        assert one["images"] > 0 < one["first_batch_seconds"] <= one["first_epoch_seconds"]
        fetched = one["facts"]["fetched"]
        assert (fetched is None) == (name in ("folder", "tar"))
        assert f"| {name} | " in done.stdout
        # More than one epoch was read, and the first one alone fetches from behind a cache.
        if name == "folder in S3":
            assert fetched["requests"] > 128
        elif name == "folder in S3, cache":
            assert fetched["requests"] == 128 and fetched["cached"] > 0
    assert "- tar in S3: " in done.stdout and "MB above the local run" in done.stdout
    # What was packed is gone.
    assert {path.name for path in tmp_path.iterdir()} == {"remote.json", "remote.md"}


def test_remote_says_which_options_measure_nothing(folder):
    done = run("remote.py", folder, *QUICK, "--many", 20)
    assert done.returncode == 1
    assert "--prefetch is 67108864, and the photographs have" in done.stderr
    assert "Traceback" not in done.stderr
    for wrong, said in (
        (("--many", 200), "--shards and --many must be 10000 or less, and no more than photographs"),
        (("--latency", -1), "--latency is -1.0; expected 0 or more"),
        (("--workers", "2,0"), "argument --workers: 0 is not above 0"),
    ):
        done = run("remote.py", folder, *QUICK, *wrong)
        assert done.returncode == 2
        assert said in done.stderr


def test_cold_measures_files_that_are_not_in_memory(folder, tmp_path):
    result = tmp_path / "result.json"
    where = ROOT / "build"
    options = ["--rounds", "1", "--megabytes", "0.1", "--threads", "1", "--shards", "2", "--json", result]
    done = run("cold.py", folder, *options, "--folder", tmp_path)
    if "is in memory" in done.stderr or "stay in memory" in done.stderr:
        where.mkdir(exist_ok=True)
        done = run("cold.py", folder, *options, "--folder", where)
        if "memory" in done.stderr:
            pytest.skip(f"no folder here is on a disk: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    record = json.loads(result.read_text())
    assert record["files"] >= FILES
    for name in (
        "only reading, 1 threads",
        "fit: bare libjpeg-turbo",
        "fit: highway",
        "rrc: highway, 2 tars",
    ):
        (both,) = record["rounds"][name]
        assert both["cold"]["images"] == both["warm"]["images"] == record["files"], name
    # the copies are gone
    assert sorted(path.name for path in tmp_path.iterdir()) == ["result.json"]


def test_cold_tells_resident_pages_from_others(benchmarks, tmp_path):
    cold = benchmarks("cold")
    path = tmp_path / "file"
    path.write_bytes(bytes(10 * 4096 + 1))
    (tmp_path / "empty").write_bytes(b"")
    paths = [str(path), str(tmp_path / "empty")]
    cold.make_warm(paths)
    assert cold.resident_share(paths) == 1.0
    assert cold.resident_share([str(tmp_path / "empty")]) == 0.0


def test_cold_refuses_a_folder_in_memory(benchmarks, folder, monkeypatch, tmp_path):
    cold = benchmarks("cold")
    assert cold.filesystem(Path("/proc/self")) == "proc"
    monkeypatch.setattr(cold, "filesystem", lambda folder: "tmpfs")
    with pytest.raises(cold.ColdError, match=r"is in memory \(tmpfs\); give --folder on a disk"):
        cold.copy_files([], tmp_path, 1)
    monkeypatch.setattr(cold, "filesystem", lambda folder: "ext4")
    paths = [str(path) for path in sorted(folder.rglob("*.jpg"))]
    with pytest.raises(cold.ColdError, match="give another --folder or fewer --megabytes"):
        cold.copy_files(paths, tmp_path, 1e12)
    done = run("cold.py", folder, "--other", tmp_path)
    assert done.returncode == 2
    assert "expected a built checkout" in done.stderr
    done = run("cold.py", folder, "--job", "fit", "--shards", 2)
    assert done.returncode == 2
    assert "expected --shards from 1 to 10000, and --job rrc or all with it" in done.stderr


def test_datasets_measures_highway(tmp_path):
    done = run("dataset_reader.py", tmp_path, "--samples", "96", "--run", "arrays", "highway", "threads")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["first"] > 0 and found["rate"] > 0 and found["memory"] >= 0


def test_startup_and_memory_measure_highway(folder, tmp_path):
    result = tmp_path / "result.json"
    done = run("startup.py", folder, "--rounds", "1", "--threads", "1", "--json", result)
    assert done.returncode == 0, done.stderr
    assert all(len(values) == 1 for values in json.loads(result.read_text())["seconds"].values())

    done = run("memory.py", folder, "--epochs", "4", "--threads", "1", "--hold", "2", "--json", result)
    assert done.returncode == 0, done.stderr
    jobs = json.loads(result.read_text())["jobs"]
    assert [len(job["epochs"]) for job in jobs.values()] == [4, 4]
    for job in jobs.values():
        assert 0 < job["summary"]["start"] < job["summary"]["settled"] <= job["summary"]["peak"]
    assert done.stdout.count("settled") == 2


def test_transforms_are_measured_without_peers(benchmarks, tmp_path):
    quick = ["--batch", 2, "--size", 28, "--rounds", 1, "--seconds", 0.001]
    written = {"--json": tmp_path / "transforms.json", "--markdown": tmp_path / "transforms.md"}
    done = run("transforms.py", *quick, *(part for pair in written.items() for part in pair))
    assert done.returncode == 0, done.stderr
    record = json.loads(written["--json"].read_text())
    jobs = {name.partition(" / ")[0] for name in record["seconds"]}
    assert {"FlipX", "Mixup", "TrivialAugmentWide", "five of single values: 5"} <= jobs
    turns = benchmarks("transforms").CHAINED
    for name, seconds in record["seconds"].items():
        assert len(seconds) == (turns if name.startswith("five ") else 1)
        assert min(seconds) > 0
    assert written["--markdown"].read_text() == done.stdout
    assert "| FlipX(p=1) |" in done.stdout
    assert "the dearest alone" in done.stdout


def test_every_transform_is_compared(benchmarks):
    """All that there are, but for those that only hold others or functions."""
    from highway import transforms

    jobs = benchmarks("on_arrays.jobs").jobs(224)
    without = {
        *("Albumentations", "Buckets", "CenterFit", "Fit", "Lambda", "OneOf", "RandomApply", "Sequential"),
        *("Placement", "RandomFit", "SomeOf", "Stretch", "TorchVision", "Transform", "Views", "Warp"),
    }
    # Without the names of torchvision.
    own = {name for name in transforms.__all__ if getattr(transforms, name).__name__ == name}
    assert {name.split()[0] for name in jobs} == own - without


def test_results_that_are_not_alike_are_not_measured(benchmarks):
    module, jobs = benchmarks("transforms"), benchmarks("on_arrays.jobs")
    images = jobs.pictures(3, 28)
    expected = images[:, :, ::-1]
    exact, near = jobs.Job("", jobs.nothing), jobs.Job("", jobs.nothing, 1)

    def differs(job, found, kind="function"):
        return module.difference(job, kind, found, expected, images)

    assert differs(exact, expected) is None
    off = expected.copy()
    off[1, 0, 0, 0] += 1
    assert "apart from Highway's" in differs(exact, off)
    assert differs(near, off) is None
    assert "apart from Highway's" in differs(near, images)
    assert differs(exact, off, "First") is None
    assert "expected uint8" in differs(exact, expected[:2])
    assert "expected uint8" in differs(exact, expected.astype(np.float32))
    assert "changed by 0 levels" in differs(exact, images, "Own")
    assert differs(exact, images[:, ::-1], "Own") is None


def test_highway_does_what_is_compared(benchmarks):
    """What was drawn for the peers is what Highway's transforms are given."""
    module, jobs = benchmarks("on_arrays.with_highway"), benchmarks("on_arrays.jobs")
    images, sizes = jobs.pictures(4, 56), jobs.Sizes(56)
    for name, job in jobs.jobs(56).items():
        drawn = job.draw(np.random.default_rng(0), 4, sizes)
        found = module.result(name, images, drawn, sizes)
        assert len(found) == 4, name
        if name == "RandomCrop":
            for image, (top, left), one in zip(images, drawn, found, strict=True):
                assert np.array_equal(one, image[top : top + sizes.crop, left : left + sizes.crop])
        if name == "Shift":
            for image, (x, y), one in zip(images, drawn, found, strict=True):
                below, beside = slice(max(y, 0), 56 + min(y, 0)), slice(max(x, 0), 56 + min(x, 0))
                above, before = slice(max(-y, 0), 56 - max(y, 0)), slice(max(-x, 0), 56 - max(x, 0))
                assert np.array_equal(one[below, beside], image[above, before])


def test_memory_of_transforms_is_watched():
    done = run("transforms.py", "--memory", 10)
    assert done.returncode == 0, done.stderr
    assert re.search(r"over 10 batches of \d+ transforms in a row: [\d.]+ MB", done.stdout)


def test_boxes_are_measured_against_reading_without(tmp_path):
    voc_folder(tmp_path / "voc", {f"{n}": annotation(thing(), thing("cat")) for n in range(8)})
    done = run("transforms.py", "--detection", tmp_path / "voc", "--batch", 4, "--rounds", 1)
    assert done.returncode == 0, done.stderr
    assert re.search(
        r"8 pictures with annotations.*ms with boxes, up to \d+ in a batch", done.stdout, re.DOTALL
    )


PARTICIPANT = """
import numpy as np
{imports}

def batches(directory, job, threads, variant, seed):
    rng = np.random.default_rng(seed)
    while True:
        images = rng.integers(0, 256, job.batch_shape(job.batch_size)).astype(job.dtype)
        labels = rng.integers(0, 3, job.batch_size)
        {action}
        yield images, labels
"""


@pytest.mark.parametrize(
    ("imports", "action", "status", "reason"),
    [
        ("import package_that_nobody_has", "", "missing", "No module named 'package_that_nobody_has'"),
        ("import json.nothing", "", "missing", "No module named 'json.nothing'"),
        ("raise OSError('libsomething.so: not found')", "", "failed", "libsomething.so: not found"),
        ("", "raise RuntimeError('broken decoder')", "failed", "RuntimeError: broken decoder"),
        ("", "images[:] = 7", "failed", "ValueError: all pixels of a batch are 7; expected photographs"),
        ("", "images = images.astype('float64')", "failed", "images are float64"),
        ("", "images = images[:, :, :, :2]", "failed", "images have shape (16, 240, 320, 2)"),
        ("", "labels = labels[:3]", "failed", "labels have shape (3,); expected (16,)"),
        ("", "labels += 1", "failed", "found the labels [1, 2, 3]; expected those of 3 classes"),
    ],
)
def test_a_participant_that_is_missing_or_wrong_says_why(folder, tmp_path, imports, action, status, reason):
    (tmp_path / "odd_one.py").write_text(PARTICIPANT.format(imports=imports, action=action))
    quick = ["--threads", "1", "--warmup", "0.01", "--seconds", "0.01"]
    done = run("participants/run.py", "odd_one", "--job", "fit", "--dir", folder, *quick, path=[tmp_path])
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["status"] == status
    assert reason in result["reason"]


def fitted(number, mirrored):
    """What a right participant returns of a file: 240x320."""
    picture = photograph(90 + number, 130 - number, seed=number)
    width, height = picture.size
    box_width, box_height = min(width, height * 4 / 3), min(height, width * 3 / 4)
    left, top = (width - box_width) / 2, (height - box_height) / 2
    image = np.asarray(picture.resize((320, 240), box=(left, top, left + box_width, top + box_height)))
    return image[:, ::-1] if mirrored else image


def prove(participants, *, same_file=False, wrong_label=False, never_mirrored=False, upside_down=False):
    """A proof over 48 images that are right but for what the arguments say."""
    jobs, proof = participants("jobs"), participants("proof")
    labels = np.arange(FILES) * CLASSES // FILES
    cells = np.stack([fitted(n, False).reshape(4, 60, 5, 64, 3).mean((1, 3)) for n in range(FILES)])
    judge = proof.Proof(jobs.JOBS["fit"], labels.tolist(), cells)
    for start in range(0, 48, 16):
        numbers = [0 if same_file else n % FILES for n in range(start, start + 16)]
        images = np.stack([fitted(n, k % 2 and not never_mirrored) for k, n in enumerate(numbers)])
        if upside_down:
            images = np.ascontiguousarray(images[:, ::-1])
        batch_labels = (labels[numbers] + wrong_label) % CLASSES
        assert judge.check(images, batch_labels) == 16
        judge.look(images, batch_labels)
    judge.conclude()


def test_proof_accepts_the_files(participants):
    prove(participants)


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("same_file", "different images among 48"),
        ("wrong_label", "48 of 48 images are none of the files of their label"),
        ("upside_down", "images are none of the files of their label"),
        ("never_mirrored", "0 of 48 images are mirrored; expected half"),
    ],
)
def test_proof_refuses(participants, fault, reason):
    with pytest.raises(ValueError, match=reason):
        prove(participants, **{fault: True})


@pytest.mark.parametrize("size", [(375, 500), (500, 375), (1, 1), (1, 900), (2000, 7)])
def test_windows_are_inside_the_picture(participants, size):
    windows = participants("windows")
    height, width = size
    rng = random.Random(3)
    found = [windows.random_window(rng, height, width) for _ in range(200)]
    for top, left, rows, columns in [*found, windows.centre_window(height, width, 240, 320)]:
        assert 0 <= top < top + rows <= height or height == rows == 1
        assert 0 <= left < left + columns <= width or width == columns == 1
    assert windows.centre_window(375, 500, 240, 320) == (0, 0, 375, 500)
    assert windows.centre_window(500, 375, 240, 320) == (109, 0, 281, 375)


def test_pictures_measures_each_format_against_pillow(folder, tmp_path):
    result = tmp_path / "pictures.json"
    few = ("--pictures", 4, "--rounds", 1, "--seconds", 0.05, "--threads", 1)
    done = run("pictures.py", folder, *few, "--format", "PNG", "--format", "WebP, lossy", "--json", result)
    assert done.returncode == 0, done.stderr
    rows = json.loads(result.read_text())["rows"]
    assert set(rows) == {f"{name}, {job}" for name in ("PNG", "WebP, lossy") for job in ("fit", "rrc")}
    for row in rows.values():
        assert min(*row["highway"], *row["pillow"]) > 0


def test_transport_measures_chains_against_bare_sockets(tmp_path):
    result = tmp_path / "transport.json"
    done = run("transport.py", "--count", 20, "--rounds", 1, "--json", result)
    assert done.returncode == 0, done.stderr
    figures = json.loads(result.read_text())["figures"]
    for name in ("ipc", "tcp", "tcp with CURVE"):
        assert figures[name]["highway"] > 0 and figures[name]["bare"] > 0
        assert figures[name]["of bare"] == pytest.approx(figures[name]["highway"] / figures[name]["bare"])
    assert figures["microseconds of a header"] > 0
    assert "for the hop" in done.stdout
    killed = figures["one of three workers killed"]
    assert killed["seconds"] > 0 and 0 < killed["longest wait"] <= killed["killed"]


def test_formats_are_compared(folder, tmp_path):
    written = {"--json": tmp_path / "formats.json", "--markdown": tmp_path / "formats.md"}
    named = [part for pair in written.items() for part in pair]
    done = run("formats.py", folder, *QUICK, "--shards", 3, "--scratch", tmp_path, *named)
    assert done.returncode == 0, done.stderr
    assert written["--markdown"].read_text() == done.stdout
    rows = rows_of(written["--json"])
    assert list(rows) == ["folder", "tar", "Parquet", "webdataset", "datasets + torch DataLoader"]
    reading = ["folder", "tar"]
    if importlib.util.find_spec("pyarrow") is None:
        assert "pip install pyarrow" in rows["Parquet"]["reason"]
    else:
        reading.append("Parquet")
    for name in reading:
        assert rows[name]["status"] == "ok", rows[name]["reason"]
        assert rows[name]["rounds"][0]["images_per_second"] > 0
        assert re.search(rf"^\| {name} \| \d+ \| ([\d.]+)? \| [\d.]+ \|", done.stdout, re.MULTILINE)
    for name in list(rows)[3:]:
        assert rows[name]["status"] == "missing"
        assert f"- {name}: missing: no interpreter that was given imports torch" in done.stdout
    assert {path.name for path in tmp_path.iterdir()} == {"formats.json", "formats.md"}


@pytest.mark.parametrize("script", ["formats.py", "remote.py"])
def test_peers_of_formats_and_remote_are_installed_on_request(script, folder, tmp_path):
    done = run(script, folder, "--install")
    assert done.returncode == 2
    assert "--install needs --peers FOLDER, where the environments are made" in done.stderr
    done = run(script, folder, "--peers", tmp_path)
    assert done.returncode == 1
    assert f"--peers: {tmp_path} has no environments (NAME/bin/python)" in done.stderr
    done = run(script, folder, "--photos", 63, *(["--many", 2] if script == "remote.py" else []))
    assert done.returncode == 2
    assert "--photos is 63; expected 64 or more" in done.stderr


def test_loaders_share_environments(benchmarks, tmp_path, monkeypatch):
    install_peers, registry = benchmarks("install_peers"), benchmarks("participants.registry")
    subject = benchmarks("subject")
    made = []
    monkeypatch.setattr(install_peers, "complaint", lambda peer, environment: "")

    def install_one(peer, environment):
        made.append(environment.name)
        python = environment / "bin" / "python"
        python.parent.mkdir(parents=True)
        python.write_text(
            f"#!{sys.executable}\nimport json, sys\nprint(json.dumps([True] * len(sys.argv[3:])))\n"
        )
        python.chmod(0o755)
        (environment / install_peers.STAMP).write_text(json.dumps(peer.requirements))

    monkeypatch.setattr(install_peers, "install_one", install_one)
    assert install_peers.install(tmp_path, [peer.name for peer in registry.LOADERS]) == {}
    assert made == ["shards", "streams"]
    found = subject.choose_interpreters([], tmp_path, [registry.HIGHWAY_READERS, *registry.LOADERS])
    # Highway's is this one, although the others could import it.
    assert found.pop("readers") == sys.executable
    assert {name: Path(python).parents[1].name for name, python in found.items()} == {
        "webdataset": "shards",
        "datasets": "shards",
        "litdata": "streams",
        "streaming": "streams",
    }
    with pytest.raises(SystemExit, match="'opencv' is no participant; expected one of webdataset, datasets"):
        subject.choose_interpreters(["opencv=python"], tmp_path, registry.LOADERS)


def test_photographs_are_written_with_their_numbers(benchmarks, folder, tmp_path):
    from highway.modules import TarReader

    photographs = benchmarks("photographs")
    paths = photographs.copied(str(folder), 30, tmp_path / "photos")
    originals = sorted(folder.rglob("*.jpg"))
    assert [path.read_bytes() for path in paths] == [originals[n % FILES].read_bytes() for n in range(30)]
    assert paths == sorted((tmp_path / "photos").rglob("*.jpg"))
    name = photographs.write_tars(paths, tmp_path / "tars", 4)
    reader = TarReader(name, 30, 32, shuffle=False, epochs=1)
    with highway.Pipeline([reader]) as pipeline:
        assert pipeline.dequeue().labels.tolist() == list(range(30))
    photographs.write_colors(paths, tmp_path / "colors.npy")
    colors = np.load(tmp_path / "colors.npy")
    expected = photograph(90, 130, seed=0)
    assert np.allclose(colors[[0, FILES]], np.asarray(expected).mean(axis=(0, 1)) / 255, atol=0.02)
    with pytest.raises(ValueError, match="expected class folders of pictures"):
        photographs.copied(str(tmp_path / "tars" / ".."), 3, tmp_path / "none")


def test_parquet_has_the_photographs(benchmarks, folder, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")
    photographs = benchmarks("photographs")
    paths = photographs.copied(str(folder), 130, tmp_path / "photos")
    photographs.write_parquet(paths, tmp_path / "photos.parquet")
    found = parquet.ParquetFile(tmp_path / "photos.parquet")
    assert found.num_row_groups == 2
    table = found.read()
    assert table["label"].to_pylist() == list(range(130))
    assert [one["bytes"] for one in table["image"].to_pylist()] == [path.read_bytes() for path in paths]


def numbered(participants, epochs, *, value=None, labels=None):
    """Check epochs of 16 images in halves, each of one color, plus noise; `epochs` lists numbers of photographs."""
    jobs, module = participants("jobs"), participants("numbered")
    rng = np.random.default_rng(3)
    colors = rng.uniform(0.2, 0.8, (16, 3))
    judge = module.NumberedProof(jobs.JOBS["rrc"], colors)
    mean, std = np.array(jobs.MEAN), np.array(jobs.STD)
    for epoch in epochs:
        for part in (epoch[:8], epoch[8:]):
            pixels = colors[part][:, :, None, None] + rng.uniform(-0.1, 0.1, (len(part), 3, 224, 224))
            if value is not None:
                pixels[3, 1, 7, 7] = value
            images = ((pixels - mean[:, None, None]) / std[:, None, None]).astype(np.float32)
            given = np.array(part) if labels is None else labels(np.array(part))
            assert judge.check(images, given) == len(part)
            judge.look(images, given)
    judge.conclude()
    return judge


def test_numbered_proof_accepts_whole_epochs(participants):
    orders = [list(np.random.default_rng(seed).permutation(16)) for seed in range(3)]
    judge = numbered(participants, orders)
    assert judge.epoch == 16 and judge.times.tolist() == [3] * 16
    # An epoch that is under way.
    assert numbered(participants, [*orders, orders[0][:9]]).seen == 57
    assert numbered(participants, orders, value=1.0).seen == 48


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (
            {"epochs": [[*range(15), 14]]},
            "sample 14 came 2 times among the first 16; expected each of 16 once",
        ),
        ({"epochs": [[*range(16)], [*range(1, 16), 1]]}, "sample 1 came 3 times among the first 32"),
        ({"value": 1.01}, "channels are from .* expected"),
        ({"value": -0.01}, "channels are from .* expected"),
        ({"labels": lambda numbers: numbers + 1}, "expected numbers from 0 to 15"),
        ({"labels": lambda numbers: numbers.astype(float)}, "expected numbers from 0 to 15"),
        ({"labels": lambda numbers: (numbers + 7) % 16}, "the labels belong to other photographs"),
    ],
)
def test_numbered_proof_refuses(participants, change, reason):
    arguments = {"epochs": [[*range(16)], [*range(16)]], **change}
    with pytest.raises(ValueError, match=reason):
        numbered(participants, **arguments)


@pytest.mark.parametrize("repeats", [False, True])
def test_a_participant_that_repeats_samples_fails(folder, tmp_path, benchmarks, repeats):
    photographs = benchmarks("photographs")
    paths = photographs.copied(str(folder), 128, tmp_path / "photos")
    photographs.write_colors(paths, tmp_path / "colors.npy")
    (tmp_path / "odd_one.py").write_text(
        "import highway_readers\n"
        "def batches(*given):\n"
        "    for number, (images, labels) in enumerate(highway_readers.batches(*given)):\n"
        f"        yield images, labels[::-1][:1].repeat(len(labels)) if {repeats} and number == 1 else labels\n"
    )
    variant = json.dumps({"reader": "ImageFileReader", "source": str(tmp_path / "photos")})
    quick = ["--threads", "1", "--warmup", "0.01", "--seconds", "0.01", "--job", "rrc", "--variant", variant]
    whole = ["--colors", tmp_path / "colors.npy", "--whole-epoch", "--dir", tmp_path / "photos"]
    done = run("participants/run.py", "odd_one", *quick, *whole, path=[tmp_path])
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    if repeats:
        assert result["status"] == "failed" and "expected each of 128 once an epoch" in result["reason"]
    else:
        assert result["status"] == "ok", result["reason"]
        assert 0 < result["first_batch_seconds"] < result["first_epoch_seconds"]


def made_turns(benchmarks, monkeypatch, rates, rounds=3):
    """The rows of two peers whose runs have made-up rates, by kind and workers; a text is a failure."""
    turns, registry = benchmarks("turns"), benchmarks("participants.registry")
    runs = []

    def measure(participant, python, folder, job, *, variant, threads, **more):
        kind = json.loads(variant)["kind"]
        rate = rates[participant.name][kind, threads]
        runs.append((participant.name, kind, threads, more["whole_epoch"]))
        if isinstance(rate, str):
            return {"status": "failed", "reason": rate}
        share = {"cpu_seconds": 1.0, "peak_megabytes": 5.0, "others_cores": 0.0, "first_batch_seconds": 0.5}
        return {
            "status": "ok",
            "images": rate,
            "images_per_second": rate,
            "first_epoch_seconds": 64 / rate,
        } | share

    monkeypatch.setattr(turns.subject, "measure", measure)
    options = argparse.Namespace(
        interpreters={"webdataset": "a", "datasets": "b"},
        threads=2,
        workers=[2, 4],
        rounds=rounds,
        warmup=1,
        seconds=1,
        photos=64,
    )
    rows = [turns.turn_of(peer.title, peer) for peer in registry.LOADERS[:2]]
    made = turns.Turns(rows, options, Path(), Path())
    made.measure()
    return made, runs


def test_the_fastest_decoder_and_number_of_workers_is_measured(benchmarks, monkeypatch):
    slow = {(kind, workers): 10 for kind in ("decode_jpeg", "pil", "pil v1") for workers in (2, 4)}
    rates = {
        "webdataset": slow | {("pil", 2): 30, ("pil", 4): 40, ("decode_jpeg", 4): 99},
        "datasets": slow | {("decode_jpeg", 2): "broken", ("pil v1", 2): 20},
    }
    turns, runs = made_turns(benchmarks, monkeypatch, rates)
    first, second = turns.rows
    assert (first.written_as, second.written_as) == ("pil, 4 workers", "pil v1, 2 workers")
    assert first.trials == {"decode_jpeg, 2 workers": 10, "pil, 2 workers": 30, "pil v1, 2 workers": 10} | {
        "pil, 4 workers": 40
    }
    assert first.ratio(second) == 2.0
    assert first.epoch_rates(64) == [40, 40, 40]
    # Trials do not go through a whole epoch; the rounds do, in turns.
    assert runs[8:] == [
        *(("webdataset", "pil", 4, True), ("datasets", "pil v1", 2, True)),
        *(("datasets", "pil v1", 2, True), ("webdataset", "pil", 4, True)),
        *(("webdataset", "pil", 4, True), ("datasets", "pil v1", 2, True)),
    ]
    assert not any(whole for *_, whole in runs[:8])


def test_a_peer_that_fails_is_listed_with_the_reason(benchmarks, monkeypatch):
    kinds = [(kind, workers) for kind in ("decode_jpeg", "pil", "pil v1") for workers in (2, 4)]
    rates = {"webdataset": dict.fromkeys(kinds, "no tar"), "datasets": dict.fromkeys(kinds, 10)}
    turns, _ = made_turns(benchmarks, monkeypatch, rates)
    assert [row.label for row in turns.active()] == ["datasets + torch DataLoader"]
    assert turns.failures() == [
        "- webdataset: failed: decode_jpeg, 2 workers: no tar; pil, 2 workers: no tar; pil v1, 2 workers: no tar"
    ]


@pytest.mark.parametrize(
    "script", ["soak.py", "store.py", "transport.py", "participants/chain.py", "participants/job_chain.py"]
)
def test_help_of_the_others(script):
    done = run(script, "--help")
    assert done.returncode == 0, done.stderr
    assert "--" in done.stdout


def test_spread_job_makes_all_images(benchmarks, folder):
    transport = benchmarks("transport")
    together, nothing = transport.job_cpu(folder, False, 2)
    spread, wire = transport.job_cpu(folder, True, 60)
    assert together > 0 and nothing == 0
    # So many that they outweigh what the start of the processes takes more at one time than at another.
    assert spread > 0
    # Bytes to the workers, and four times as many from them.
    assert wire == pytest.approx(5 * 224 * 224 * 3 / 1e6)


def test_soak_watches_every_process(tmp_path):
    result = tmp_path / "soak.json"
    done = run("soak.py", "--minutes", 0.05, "--pause", 0.1, "--json", result)
    assert done.returncode == 0, done.stderr
    figures = json.loads(result.read_text())["figures"]
    assert set(figures) == {"source", "sink", "worker 1", "worker 2"}
    assert all(1 < figure["median"] <= figure["peak"] for figure in figures.values())


def test_store_measures_reading_writing_and_states(folder, tmp_path):
    pytest.importorskip("plyvel", reason="plyvel is not installed")
    written = {"--json": tmp_path / "store.json", "--markdown": tmp_path / "store.md"}
    small = ["--records", 64, "--written", 64, "--rounds", 2, "--seconds", 0.05, "--folder", tmp_path]
    arguments = [*small, *(part for pair in written.items() for part in pair)]
    done = run("store.py", folder, "--no-photos", *arguments)
    assert done.returncode == 0, done.stderr
    assert written["--markdown"].read_text() == done.stdout
    figures = json.loads(written["--json"].read_text())["figures"]
    for job, others in (("stored", {"plyvel"}), ("memory", {"memcpy"})):
        assert {"highway", *others} <= set(figures[job])
        for row in figures[job].values():
            assert [one["status"] for one in row["rounds"]] == ["ok", "ok"]
    assert {one["records"] for rounds in figures["writing"].values() for one in rounds} == {64}
    readers = {"ArrayReader", "ImageFileReader", "LevelDBSource", "ListReader", "VOCReader"}
    assert set(figures["states"]) == readers
    assert "| stored records, " in done.stdout and "| writing, " in done.stdout
    assert {path.name for path in tmp_path.iterdir()} == {"store.json", "store.md"}
    assert run("store.py", "--records", 63).returncode == 2


def record_batch(records, numbers, *, mirrored, apart=0.0):
    """Windows of records, normalized, at differing places."""
    mean, std = np.array((0.485, 0.456, 0.406)), np.array((0.229, 0.224, 0.225))
    found = []
    for place, number in enumerate(numbers):
        top, left = place % 33, place * 7 % 33
        window = records[number, top : top + 224, left : left + 224]
        if mirrored and place % 2:
            window = window[:, ::-1]
        found.append(((window / 255 - mean) / std).transpose(2, 0, 1))
    return np.ascontiguousarray(np.stack(found), np.float32) + np.float32(apart)


@pytest.mark.parametrize(
    ("mirrored", "wrong_label", "apart", "reason"),
    [
        (True, 0, 0.0, None),
        (True, 1, 0.0, "is no window of that record"),
        (True, 0, 1e-4, "is no window of that record"),
        (False, 0, 0.0, "0 of 16 images are mirrored"),
    ],
)
def test_images_must_be_windows_of_their_records(
    participants, tmp_path, mirrored, wrong_label, apart, reason
):
    jobs, module = participants("jobs"), participants("records")
    rng = np.random.default_rng(0)
    records = rng.integers(0, 128, (16, 256, 256, 3), dtype=np.uint8) + np.arange(
        0, 128, 8, dtype=np.uint8
    ).reshape(16, 1, 1, 1)
    np.save(tmp_path / "images.npy", records)
    judge = module.RecordProof(jobs.RECORD_JOBS["stored"], str(tmp_path))
    images = record_batch(records, range(16), mirrored=mirrored, apart=apart)
    labels = (np.arange(16) + wrong_label) % 16

    def judged():
        judge.check(images, labels)
        judge.look(images, labels)
        judge.conclude()

    if reason is None:
        judged()
        assert judge.looked_at == 16 and judge.mirrored == 8
    else:
        with pytest.raises(ValueError, match=reason):
            judged()
