"""Packs photographs in the format of a participant, in its interpreter.

usage: packing_for_peers.py MODULE DIR FOLDER BYTES

The labels are the numbers of the photographs in sorted order; shards have up to so many bytes.
"""

import importlib
import sys

from jobs import list_files

if __name__ == "__main__":
    module, directory, folder, nbytes = sys.argv[1:]
    importlib.import_module(module).pack(list_files(directory)[0], folder, int(nbytes))
