"""Processes that read objects: their memory, and what remains of a cache when they are killed."""

import random
import signal
import subprocess
import sys
from contextlib import ExitStack

import numpy as np
import pytest
from cache_users import in_folder
from every_sample import samples
from object_server import ObjectServer, folder_objects
from pictures import jpeg_bytes
from PIL import Image

from highway.cli import main
from highway.modules import ImageFileReader
from highway.transforms import RandomResizedCrop

pytest.importorskip("obstore", reason="obstore is not installed")

LIMIT = 60.0
MEGABYTE = 1_000_000


def noise(side, seed):
    """A JPEG of about a byte for each pixel."""
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side, 3), np.uint8)
    return jpeg_bytes(Image.fromarray(pixels), quality=60)


MEASURED = """
import sys
from highway.engine import Pipeline
from highway.modules import ImageFileReader

endpoint, window, cache = sys.argv[1:]
options = {"endpoint": endpoint, "access_key_id": "k", "secret_access_key": "s", "region": "us-east-1"}
cached = {"cache": cache, "cache_bytes": 1e9} if cache else {}

def status(key):
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith(key)) * 1024

def read(folder, epochs):
    reader = ImageFileReader(
        f"s3://data/{folder}", 4, 64, epochs=epochs, workers=1, queue_size=2, prefetch_bytes=int(window),
        storage_options=options, **cached
    )
    with Pipeline([reader]) as pipeline:
        for _ in pipeline.forever():
            pass
    return reader.fetched()

read("few", 1)
before = status("VmRSS")
fetched = read("many", 3)
print(status("VmHWM") - before, fetched["fetched"], fetched["most_held"])
"""


@pytest.mark.parametrize("cache", [False, True], ids=["", "cache"])
def test_the_memory_of_a_process_is_the_window_and_little_more(tmp_path, cache):
    picture = noise(900, 1)
    window = 8 << 20
    objects = {f"data/few/a/{number}.jpg": picture for number in range(4)}
    objects |= {f"data/many/a/{number:03}.jpg": picture for number in range(100)}
    with ObjectServer(objects) as server:
        done = subprocess.run(
            [
                sys.executable,
                "-c",
                MEASURED,
                server.endpoint,
                str(window),
                str(tmp_path / "cache") if cache else "",
            ],
            capture_output=True,
            text=True,
            timeout=200,
        )
    assert done.returncode == 0, done.stderr
    # pytest -rP shows it.
    print("bytes grown, fetched, held:", done.stdout)
    grown, fetched, held = map(int, done.stdout.split())
    # Far more than the bound came through.
    bound = window + 20 * MEGABYTE
    assert fetched > 1.3 * bound and window / 2 < held <= window
    assert grown < bound


READING = """
import sys
from highway.engine import Pipeline
from highway.modules import ImageFileReader

endpoint, cache = sys.argv[1:]
options = {"endpoint": endpoint, "access_key_id": "k", "secret_access_key": "s", "region": "us-east-1"}
reader = ImageFileReader("s3://data", 4, 32, workers=1, storage_options=options, cache=cache)
with Pipeline([reader]) as pipeline:
    for batch in pipeline.forever():
        print(batch.epoch, flush=True)
"""


def test_killed_readers_leave_a_cache_that_is_right(tmp_path, capsys):
    """While another process reads through the same cache, which is too small for all objects."""
    objects = {f"data/a/{number:02}.jpg": noise(220, number) for number in range(60)}
    limit = 1 << 20
    assert sum(map(len, objects.values())) > 1.2 * limit
    for key, body in objects.items():
        (tmp_path / key).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / key).write_bytes(body)
    job = {"fit": RandomResizedCrop(), "seed": 2, "epochs": 2}
    expected = samples(ImageFileReader(tmp_path / "data", 7, 32, **job))
    cache = tmp_path / "cache"
    draw = random.Random(3)
    with ObjectServer(folder_objects(tmp_path / "data")) as server, ExitStack() as ends:
        through = {"storage_options": server.options, "cache": cache, "cache_bytes": limit}

        def start():
            process = subprocess.Popen(
                [sys.executable, "-c", READING, server.endpoint, str(cache)],
                stdout=subprocess.PIPE,
                text=True,
            )
            ends.callback(process.stdout.close)
            ends.callback(process.wait, LIMIT)
            ends.callback(process.kill)
            return process

        assert samples(ImageFileReader("s3://data", 7, 32, **job, **through)) == expected
        survivor = start()
        for _ in range(4):
            victim = start()
            for _ in range(draw.randrange(1, 25)):
                assert victim.stdout.readline()
            victim.kill()
            assert victim.wait(LIMIT) == -signal.SIGKILL
            assert survivor.poll() is None and survivor.stdout.readline()
        assert samples(ImageFileReader("s3://data", 7, 32, **job, **through)) == expected
        assert survivor.poll() is None
        survivor.kill()
        survivor.wait(LIMIT)
    there, counted = in_folder(cache)
    assert 0 < there <= counted <= limit
    assert main(["cache", "verify", str(cache)]) == 0
    assert "none of them damaged" in capsys.readouterr().out
