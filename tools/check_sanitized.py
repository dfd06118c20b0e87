"""Checks that every extension of the installed core was built with HIGHWAY_SANITIZE=1; fails otherwise."""

import sys
from importlib.util import find_spec
from pathlib import Path


def main():
    core = Path(find_spec("highway").origin).parent / "_core"
    extensions = sorted(core.rglob("*.so"))
    plain = [path.name for path in extensions if b"__asan_init" not in path.read_bytes()]
    if plain or not extensions:
        return f"{core}: without AddressSanitizer: {', '.join(plain) or 'no extensions found'}"
    print(f"{len(extensions)} extensions with AddressSanitizer in {core}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
