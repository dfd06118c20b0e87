"""Checks that PIL is Pillow-SIMD with all the formats of Highway's tests and demo; fails otherwise.

Pillow-SIMD compiles on installation, and silently skips a format if its header is missing; pip caches that wheel and
reinstalls it. `--repair` removes the wheel from the cache and compiles again.
"""

import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version

NEEDED = {"jpg": "libjpeg-dev", "zlib": "zlib1g-dev", "libtiff": "libtiff-dev", "webp": "libwebp-dev"}
PIP = [sys.executable, "-m", "pip"]
FORGET = [*PIP, "cache", "remove", "--quiet", "pillow_simd"]
COMPILE = [*PIP, "install", "--quiet", "--force-reinstall", "--no-deps"]
COMPILE += ["--no-binary", "Pillow-SIMD", "Pillow-SIMD"]


def installed(name):
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def lacking():
    """Return the names of the missing formats, as a separate interpreter sees them."""
    code = f"from PIL import features\nprint(*(n for n in {list(NEEDED)} if not features.check(n)))"
    return subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    ).stdout.split()


def main(arguments):
    simd, plain = installed("Pillow-SIMD"), installed("Pillow")
    if simd is None:
        return "Pillow-SIMD is not installed: pip install Pillow-SIMD"
    if plain is not None:
        return (
            f"Pillow {plain} is installed beside Pillow-SIMD {simd}, and they overwrite each other's files: "
            "pip uninstall Pillow Pillow-SIMD, then pip install Pillow-SIMD"
        )
    missing = lacking()
    if missing and arguments == ["--repair"]:
        print(f"Pillow-SIMD {simd} was built without {', '.join(missing)}: compiling it again")
        # Fails if pip has no cached wheel, which is fine.
        subprocess.run(FORGET, check=False, capture_output=True)
        subprocess.run(COMPILE, check=True)
        missing = lacking()
    if missing:
        return (
            f"Pillow-SIMD {simd} was built without {', '.join(missing)}: "
            f"apt-get install {' '.join(NEEDED[name] for name in missing)}, "
            f"then {' '.join(FORGET)} and {' '.join(COMPILE)}"
        )
    print(f"Pillow-SIMD {simd} with {', '.join(NEEDED)}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
