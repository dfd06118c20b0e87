"""Builds the Cython core.

Switches (environment variables, each "1" to turn on):

HIGHWAY_DEBUG     bounds checks in Cython, assertions and symbols in C, no optimisation
HIGHWAY_COVERAGE  line tracing in Cython for coverage measurements
HIGHWAY_SANITIZE  AddressSanitizer and UndefinedBehaviorSanitizer (run with libasan preloaded)
HIGHWAY_WERROR    C warnings end the build
"""

import os
import shutil
import subprocess

from Cython.Build import cythonize
from setuptools import Extension, setup


def switch(name):
    return os.environ.get(name, "") == "1"


DEBUG = switch("HIGHWAY_DEBUG")
COVERAGE = switch("HIGHWAY_COVERAGE")
SANITIZE = switch("HIGHWAY_SANITIZE")

DIRECTIVES = {
    "language_level": 3,
    "binding": True,
    "embedsignature": False,
    "boundscheck": DEBUG or SANITIZE,
    "wraparound": False,
    "initializedcheck": DEBUG or SANITIZE,
    "cdivision": True,
    "linetrace": COVERAGE,
}


def libjpeg_flags():
    """Compiler and linker flags of libjpeg-turbo; ends the build with one sentence where it is missing."""
    missing = (
        "Highway needs the headers of libjpeg-turbo and pkg-config to build: "
        "apt-get install libjpeg62-turbo-dev pkg-config (Debian) or libjpeg-turbo8-dev pkg-config (Ubuntu)."
    )
    pkg_config = os.environ.get("PKG_CONFIG", "pkg-config")
    if shutil.which(pkg_config) is None:
        raise SystemExit(missing)

    def ask(option):
        answer = subprocess.run([pkg_config, option, "libjpeg"], capture_output=True, text=True)
        if answer.returncode:
            raise SystemExit(missing)
        return answer.stdout.split()

    return ask("--cflags"), ask("--libs")


def extensions():
    compile_args = ["-std=gnu11", "-Wall", "-Wextra", "-Wno-unused-parameter", "-Wno-missing-field-initializers"]
    link_args = []
    macros = []
    if switch("HIGHWAY_WERROR"):
        compile_args += ["-Werror"]
    if DEBUG:
        compile_args += ["-O0", "-g"]
    else:
        compile_args += ["-O3", "-g0"]
        macros += [("NDEBUG", "1")]
    if COVERAGE:
        macros += [("CYTHON_TRACE_NOGIL", "1")]
    if SANITIZE:
        sanitizers = ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined", "-fno-omit-frame-pointer", "-g"]
        compile_args += sanitizers
        link_args += sanitizers
    jpeg_cflags, jpeg_libs = libjpeg_flags()

    def extension(name, *sources, cflags=(), libs=()):
        return Extension(
            f"highway._core.{name}",
            [f"highway/_core/{name}.pyx", *(f"highway/_core/{source}" for source in sources)],
            define_macros=macros,
            extra_compile_args=compile_args + list(cflags),
            extra_link_args=link_args + list(libs),
            depends=[f"highway/_core/{source.removesuffix('.c')}.h" for source in sources],
        )

    every = [
        extension("queue", libs=["-pthread"]),
        extension("pool"),
        extension("philox"),
        extension("geometry", "pixels.c"),
        extension("values", "pixels.c"),
        extension("jpeg", "jpeg_decoder.c", "resampler.c", cflags=jpeg_cflags, libs=jpeg_libs),
        extension("resample", "resampler.c"),
    ]
    return [e for e in every if os.path.exists(e.sources[0])]


setup(ext_modules=cythonize(extensions(), compiler_directives=DIRECTIVES))
