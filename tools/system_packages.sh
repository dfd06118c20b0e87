#!/bin/sh
# Installs the system packages that building Highway and Pillow-SIMD needs, or prints the command.
# usage: tools/system_packages.sh PYTHON [OTHER_PYTHON ...]
# PYTHON creates the environment; for the other installed Pythons only headers are needed.
set -eu

python="${1-}"
if [ -z "$python" ] || ! "$python" -c "" 2>/dev/null; then
    echo "No Python named '$python': make ... PYTHON=/path/to/python3 (3.10 or later)" >&2
    exit 1
fi
if ! "$python" -c "import sys; sys.exit(sys.version_info < (3, 10))"; then
    echo "$python is $("$python" --version 2>&1), and Highway needs 3.10 or later:" \
        "make ... PYTHON=/path/to/python3" >&2
    exit 1
fi

missing=""
need() {
    case " $missing " in
        *" $1 "*) ;;
        *) missing="$missing $1" ;;
    esac
}
has() { command -v pkg-config >/dev/null 2>&1 && pkg-config --exists "$@"; }

for tool in cc c++ make; do
    command -v "$tool" >/dev/null 2>&1 || need build-essential
done
command -v pkg-config >/dev/null 2>&1 || need pkg-config
has libjpeg || need libjpeg-dev
has libdeflate || need libdeflate-dev
has zlib || need zlib1g-dev
has libwebp libwebpmux libwebpdemux || need libwebp-dev
has libtiff-4 || need libtiff-dev

# The distribution has headers and venv of its Python in packages; any other Python includes both.
lacks='
import importlib.util, os, sys, sysconfig
if sys.base_prefix == "/usr":
    version = "{}.{}".format(*sys.version_info)
    if not os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h")):
        print("python" + version + "-dev")
    if sys.argv[1] == "venv" and not all(map(importlib.util.find_spec, ("venv", "ensurepip"))):
        print("python" + version + "-venv")
'
use=venv
for interpreter in "$@"; do
    for package in $("$interpreter" -c "$lacks" "$use" 2>/dev/null || true); do
        need "$package"
    done
    use=headers
done

[ -n "$missing" ] || exit 0

if ! command -v apt-get >/dev/null 2>&1; then
    echo "Missing (package names of Debian and Ubuntu):$missing." \
        "Install the equivalent packages of your system, then run this again." >&2
    exit 1
fi
if [ "$(id -u)" -eq 0 ]; then
    as_root=""
elif command -v sudo >/dev/null 2>&1 && sudo -n true >/dev/null 2>&1; then
    as_root="sudo -n"
else
    echo "System packages are missing and need root to install. Run this, then the same command again:" >&2
    echo "    sudo apt-get update && sudo apt-get install -y$missing" >&2
    exit 1
fi
apt() {
    $as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=120 "$@" </dev/null
}
echo "Installing system packages:$missing"
apt update || echo "apt-get update failed; continuing with the existing package lists." >&2
# One word is one package.
# shellcheck disable=SC2086
apt install -y --no-install-recommends $missing
