#!/bin/sh
# Runs a command under AddressSanitizer and UndefinedBehaviorSanitizer, for a core built with HIGHWAY_SANITIZE=1.
# usage: tools/sanitized.sh python -m pytest ...
set -eu

cc="${CC:-gcc}"
asan=$("$cc" -print-file-name=libasan.so)
stdcxx=$("$cc" -print-file-name=libstdc++.so.6)
if [ ! -e "$asan" ]; then
    echo "$cc has no libasan.so: install gcc with its sanitizers (Debian, Ubuntu: apt-get install gcc)" >&2
    exit 1
fi

# The interpreter itself is not instrumented and frees nothing at exit: other tests check for leaks.
# Each allocation records five callers: recording all, the default, takes a third more time.
# libstdc++ comes first so that libasan finds the exceptions of C++ libraries that are loaded later.
exec env \
    LD_PRELOAD="$asan $stdcxx" \
    PYTHONMALLOC=malloc \
    ASAN_OPTIONS="detect_leaks=0:strict_string_checks=1:allocator_may_return_null=1:malloc_context_size=5${ASAN_OPTIONS:+:$ASAN_OPTIONS}" \
    UBSAN_OPTIONS="print_stacktrace=1:halt_on_error=1${UBSAN_OPTIONS:+:$UBSAN_OPTIONS}" \
    "$@"
