"""Builds the Cython core.

Switches (environment variables, each "1" to turn on, "0" or nothing for off):

HIGHWAY_DEBUG     bounds checks in Cython, assertions and symbols in C, no optimization
HIGHWAY_COVERAGE  line tracing in Cython for coverage measurements, except in nogil functions (tox run -e coverage)
HIGHWAY_SANITIZE  AddressSanitizer and UndefinedBehaviorSanitizer, bounds checks and assertions
                  (run with libasan preloaded: tools/sanitized.sh)
HIGHWAY_WERROR    C warnings end the build

CYTHON_CACHE_DIR names a folder that caches the C of Cython for later builds.
"""

import copy
import glob
import os
import pathlib
import shlex
import shutil
import subprocess
import sys
import sysconfig

from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext


def switch(name):
    value = os.environ.get(name, "")
    if value not in ("", "0", "1"):
        raise SystemExit(f"The environment variable {name} is {value!r}; expected 1 (on) or 0 (off).")
    return value == "1"


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
}

# A build folder for each combination of switches: neither Cython nor the compiler detects a changed flag.
KIND = [name for name, on in (("debug", DEBUG), ("coverage", COVERAGE), ("sanitize", SANITIZE)) if on]
BUILD = os.path.join("build", "-".join(KIND or ["release"]))


PKG_CONFIG = os.environ.get("PKG_CONFIG", "pkg-config")


def pkg_config(*arguments):
    """Return the words that pkg-config prints, or None if it does not know a library."""
    answer = subprocess.run([PKG_CONFIG, *arguments], capture_output=True, text=True)
    return None if answer.returncode else shlex.split(answer.stdout)


def libjpeg_flags():
    """Return the compiler and linker flags of libjpeg-turbo; end the build with one sentence if it is missing."""
    missing = (
        "Highway needs the headers of libjpeg-turbo and pkg-config to build: "
        "apt-get install libjpeg62-turbo-dev pkg-config (Debian) or libjpeg-turbo8-dev pkg-config (Ubuntu)."
    )
    if shutil.which(PKG_CONFIG) is None:
        raise SystemExit(missing)
    cflags, libs = pkg_config("--cflags", "libjpeg"), pkg_config("--libs", "libjpeg")
    if cflags is None or libs is None:
        raise SystemExit(missing)
    return cflags, libs


# Formats that the core decodes if the headers of these libraries are there; PIL decodes them otherwise.
OPTIONAL_FORMATS = {
    "PNG": (["libdeflate"], ["png/png_decoder.c", "png/png_filters.c", "png/png_header.c"]),
    "WebP": (["libwebp", "libwebpdemux"], ["webp/webp_decoder.c"]),
}


def add_optional_formats(extension):
    """Add the decoders of the formats whose libraries are there to an extension."""
    for name, (libraries, sources) in OPTIONAL_FORMATS.items():
        cflags = pkg_config("--cflags", *libraries)
        if cflags is None:
            print(
                f"Highway is compiled without {name}, which PIL decodes then: no headers of {', '.join(libraries)}"
            )
            continue
        extension.define_macros = [*extension.define_macros, (f"HIGHWAY_HAS_{name.upper()}", "1")]
        extension.sources += [f"highway/_core/{source}" for source in sources]
        extension.extra_compile_args += cflags
        extension.extra_link_args += pkg_config("--libs", *libraries)


def python_headers():
    """End the build with one sentence if Python's own headers are missing."""
    include = sysconfig.get_path("include")
    if not os.path.exists(os.path.join(include, "Python.h")):
        version = "{}.{}".format(*sys.version_info)
        raise SystemExit(
            f"Highway needs the headers of Python {version} to build, and {include} has no Python.h: "
            f"apt-get install python{version}-dev, or use a Python that includes them."
        )


def extensions():
    compile_args = [
        "-std=gnu11",
        # No implicit fused multiply-add: kernels give the same bits on every CPU.
        "-ffp-contract=off",
        # Same results; without these flags, loops with square roots and float comparisons are not vectorized.
        "-fno-math-errno",
        "-fno-trapping-math",
        "-Wall",
        "-Wextra",
        "-Wno-unused-parameter",
        "-Wno-missing-field-initializers",
    ]
    link_args = []
    macros = []
    undefined = []
    if switch("HIGHWAY_WERROR"):
        compile_args += ["-Werror"]
    if DEBUG or SANITIZE:
        compile_args += ["-O0" if DEBUG else "-O1", "-g"]
        undefined += ["NDEBUG"]
    else:
        compile_args += ["-O3", "-g0"]
        macros += [("NDEBUG", "1")]
    if COVERAGE:
        macros += [("CYTHON_TRACE", "1")]
    if SANITIZE:
        sanitizers = [
            "-fsanitize=address,undefined",
            "-fno-sanitize-recover=undefined",
            "-fno-omit-frame-pointer",
        ]
        compile_args += sanitizers
        link_args += sanitizers

    def extension(name, *sources, libs=()):
        return Extension(
            f"highway._core.{name.replace('/', '.')}",
            [f"highway/_core/{name}.pyx", *(f"highway/_core/{source}" for source in sources)],
            include_dirs=["highway/_core", *sorted(glob.glob("highway/_core/*/"))],
            define_macros=macros,
            undef_macros=undefined,
            extra_compile_args=list(compile_args),
            extra_link_args=link_args + list(libs),
            depends=sorted(glob.glob("highway/_core/**/*.h", recursive=True)),
        )

    return [
        Extension(
            MEMORYVIEWS,
            [],
            define_macros=macros,
            undef_macros=undefined,
            extra_compile_args=list(compile_args),
            extra_link_args=list(link_args),
        ),
        extension("simd", "simd_cpu.c"),
        extension("queue", libs=["-pthread"]),
        extension("pool"),
        extension("philox"),
        extension("ragged"),
        extension(
            "pixels/color",
            "pixels/pointwise.c",
            "pixels/color_kernels.c",
            "pixels/filters.c",
            "pixels/noise.c",
        ),
        extension("pixels/geometry", "pixels/pixels.c", "pixels/windows.c"),
        extension("pixels/mix", "pixels/blend.c", "pixels/pixels.c"),
        extension("pixels/values", "pixels/pixels.c", "pixels/windows.c"),
        extension("pixels/resample", "buffer.c", "pixels/resampler.c", "pixels/resampler16.c"),
        extension("pixels/warp", "pixels/pixels.c", "pixels/warper.c"),
        extension(
            "jpeg/codec",
            "buffer.c",
            "jpeg/crew.c",
            "jpeg/files.c",
            "jpeg/jpeg_decoder.c",
            "jpeg/jpeg_encoder.c",
            "jpeg/jpeg_sequential.c",
            "jpeg/jpeg_entropy.c",
            "jpeg/jpeg_header.c",
            "jpeg/jpeg_samples.c",
            "jpeg/orientation.c",
            "picture/decoders.c",
            "picture/drawing.c",
            "pixels/pixels.c",
            "pixels/resampler.c",
            "pixels/resampler16.c",
            libs=["-pthread"],
        ),
        extension("wire/codec", "wire/msgpack.c"),
        extension("records/cache_entries", "buffer.c", "records/crc32c.c", "records/entry_files.c"),
        extension("records/checksum", "records/crc32c.c"),
        extension("records/gather"),
        extension("records/layout", "records/crc32c.c"),
        extension("records/spans"),
        extension("records/span_windows", "pixels/pixels.c", "pixels/windows.c"),
        extension("records/tables", "records/crc32c.c", "records/sorted_table.c"),
        extension("tar/members", "buffer.c", "records/crc32c.c", "tar/tar_headers.c"),
        extension("tiff/tiff_messages", "tiff/libtiff.c", libs=["-ldl"]),
    ]


# Cython's own code for memoryviews, shared by all extensions: it would be most of the compiled code of each.
MEMORYVIEWS = "highway._core.memoryviews"
DECODES = {"highway._core.jpeg.codec"}
# They rely on holding the GIL between lines, and a tracer may release it at any line.
NEVER_TRACED = {"highway._core.pool", "highway._core.queue"}


class BuildCore(build_ext):
    """Checks headers and runs Cython only when compiling: metadata and an sdist need neither."""

    def finalize_options(self):
        super().finalize_options()
        if self.parallel is None:
            usable = hasattr(os, "sched_getaffinity")
            self.parallel = len(os.sched_getaffinity(0)) if usable else os.cpu_count() or 1

    def build_extension(self, ext):
        # Separate object files: several extensions share sources and compile at the same time.
        own = copy.copy(self)
        own.build_temp = os.path.join(self.build_temp, ext.name)
        # setuptools compares only times of files: a library that was installed since the last build changes flags.
        flags = repr((ext.define_macros, ext.undef_macros, ext.extra_compile_args, ext.extra_link_args))
        kept = pathlib.Path(own.build_temp, "flags")
        own.force = self.force or not kept.exists() or kept.read_text() != flags
        build_ext.build_extension(own, ext)
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_text(flags)

    def build_extensions(self):
        python_headers()
        cflags, libs = libjpeg_flags()
        for extension in self.extensions:
            if extension.name in DECODES:
                extension.extra_compile_args += cflags
                extension.extra_link_args += libs
                add_optional_formats(extension)
        for extension in self.extensions:
            traced = COVERAGE and extension.name not in NEVER_TRACED
            (generated,) = cythonize(
                [extension],
                compiler_directives=DIRECTIVES | {"linetrace": traced},
                shared_utility_qualified_name=MEMORYVIEWS,
                # Cython's coverage plugin expects the generated C next to its source.
                build_dir=None if COVERAGE else os.path.join(BUILD, f"cython-{sys.implementation.cache_tag}"),
                force=self.force,
                quiet=self.verbose == 0,
                cache="CYTHON_CACHE_DIR" in os.environ,
            )
            extension.sources = generated.sources
        super().build_extensions()


setup(
    ext_modules=extensions(),
    cmdclass={"build_ext": BuildCore},
    options={"build": {"build_base": BUILD}},
)
