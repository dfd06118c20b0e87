#!/bin/sh
# Measures which lines the tests run, including Cython, in a copy of the sources: it replaces no extensions.
# usage: tools/coverage.sh FOLDER [argument of pytest ...]      the folder is replaced
# Not traced, and counted as not run: functions without the GIL, the queue, the pool.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
folder="$1"
shift
# The tracer's memory grows with every pipeline, so the memory test is skipped.
[ "$#" -gt 0 ] || set -- tests --deselect tests/engine/test_shutdown.py::test_hundred_pipelines_leave_nothing

rm -rf "$folder"
mkdir -p "$folder"
cd "$root"
cp -R ./*.* LICENSE Makefile highway tests benchmarks examples tools "$folder"
cd "$folder"
find highway/_core -name "*.so" -delete
HIGHWAY_COVERAGE=1 python setup.py -q build_ext --inplace
python -m coverage run -m pytest --timeout=600 "$@"
python -m coverage report
python -m coverage html --quiet
echo "Line by line: $PWD/htmlcov/index.html"
