"""Uses an installed Highway without extras: imports every module that needs none, and reads pictures."""

import base64
import importlib
import importlib.metadata
import pkgutil
import sys
import tempfile
from pathlib import Path

# Packages of extras that whole modules need: those are imported when they are used.
OF_EXTRAS = {"prometheus_client", "pyarrow"}
LIBRARIES = ("libjpeg", "libdeflate", "libwebp-", "libwebpdemux")
# Each has 32 x 24 pixels of one color, (200, 60, 20).
JPEG = """
/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDAAMCAgMCAgMDAwMEAwMEBQgFBQQEBQoHBwYIDAoMDAsKCwsNDhIQDQ4RDgsLEBYQERMUFRUVDA8X
GBYUGBIUFRT/2wBDAQMEBAUEBQkFBQkUDQsNFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBT/wAAR
CAAYACADAREAAhEBAxEB/8QAFQABAQAAAAAAAAAAAAAAAAAAAAf/xAAUEAEAAAAAAAAAAAAAAAAAAAAA/8QAFgEBAQEAAAAAAAAAAAAAAAAA
AAcI/8QAFBEBAAAAAAAAAAAAAAAAAAAAAP/aAAwDAQACEQMRAD8AliFNhgAAAAAAAAAAP//Z
"""
PNG = (
    "iVBORw0KGgoAAAANSUhEUgAAACAAAAAYCAIAAAAUMWhjAAAAJklEQVR4nGM8YSPCQEvARFPTRy0YtWDUglELRi0YtWDUglELqAYA1LIBSISPG3sA"
    "AAAASUVORK5CYII="
)
WEBP = "UklGRh4AAABXRUJQVlA4TBEAAAAvH8AFAAdQniKXov+BiOh/AAA="


def main():
    import highway

    version = importlib.metadata.version("highway-loader")
    assert highway.__version__ == version, (highway.__version__, version)
    names = [module.name for module in pkgutil.walk_packages(highway.__path__, "highway.")]
    for name in names:
        if name == "highway.__main__":
            continue
        try:
            importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name not in OF_EXTRAS:
                raise
    libraries = {
        line.split()[-1]
        for line in Path("/proc/self/maps").read_text().splitlines()
        if any(library in line for library in LIBRARIES)
    }
    home = str(Path(highway.__file__).parents[1])
    for library in LIBRARIES:
        assert any(library in loaded for loaded in libraries), f"no {library} is loaded"
    assert all(library.startswith(home) for library in libraries), libraries

    from highway.engine import Pipeline
    from highway.modules import ImageFileReader

    with tempfile.TemporaryDirectory() as folder:
        for label in ("first", "second"):
            (Path(folder) / label).mkdir()
            for name, contents in (("red.jpg", JPEG), ("red.png", PNG), ("red.webp", WEBP)):
                (Path(folder) / label / name).write_bytes(base64.b64decode(contents))
        with Pipeline([ImageFileReader(folder, 6, (12, 16))]) as pipeline:
            images, labels = pipeline.dequeue(timeout=30)
    assert images.shape == (6, 12, 16, 3), images.shape
    assert abs(images.astype(int) - (200, 60, 20)).max() <= 2, images[:, 0, 0]
    assert sorted(labels.tolist()) == [0, 0, 0, 1, 1, 1], labels
    print(
        f"highway {version}, Python {sys.version.split()[0]}: {len(names)} modules, pictures read, {libraries}"
    )


if __name__ == "__main__":
    main()
