#!/bin/sh
# Measures which lines the tests run, Cython's too, in a copy of the sources: nobody's extensions are replaced.
# usage: tools/coverage.sh FOLDER [argument of pytest ...]      the folder is made anew
# Functions without the GIL are not traced: their lines are missing from the figures.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
folder="$1"
shift
[ "$#" -gt 0 ] || set -- tests

rm -rf "$folder"
mkdir -p "$folder"
cd "$root"
cp -R setup.py setup.cfg pyproject.toml README.md LICENSE LICENSE.libjpeg-turbo highway tests "$folder"
cd "$folder"
rm -f highway/_core/*.so
HIGHWAY_COVERAGE=1 python setup.py -q build_ext --inplace
python -m coverage run -m pytest --timeout=600 "$@"
python -m coverage report
python -m coverage html --quiet
echo "Line by line: $PWD/htmlcov/index.html"
