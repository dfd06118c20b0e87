"""Ends with an error unless PIL here is Pillow-SIMD with all the formats that Highway's tests and demo use.

Pillow-SIMD is built from source when it is installed, and leaves a format out without a word where a header is
missing.
"""

import sys
from importlib.metadata import PackageNotFoundError, version

NEEDED = {"jpg": "libjpeg-dev", "zlib": "zlib1g-dev", "libtiff": "libtiff-dev", "webp": "libwebp-dev"}


def main():
    try:
        simd = version("Pillow-SIMD")
    except PackageNotFoundError:
        return "Pillow-SIMD is not installed here: pip install Pillow-SIMD"
    try:
        plain = version("Pillow")
    except PackageNotFoundError:
        pass
    else:
        return (
            f"Pillow {plain} is installed beside Pillow-SIMD {simd}, and the two overwrite each other's files: "
            "pip uninstall Pillow Pillow-SIMD, then pip install Pillow-SIMD"
        )
    from PIL import features

    lacking = [name for name in NEEDED if not features.check(name)]
    if lacking:
        return (
            f"Pillow-SIMD {simd} was built without {', '.join(lacking)}: "
            f"apt-get install {' '.join(NEEDED[name] for name in lacking)}, "
            "then pip install --force-reinstall --no-deps --no-cache-dir Pillow-SIMD"
        )
    print(f"Pillow-SIMD {simd} with {', '.join(NEEDED)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
