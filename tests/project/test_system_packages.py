"""What `make` does about missing system packages: installs them where it may, says what to type where it may not."""

import os
import shutil
import subprocess
import sys

import pytest
from repository import ROOT

SCRIPT = ROOT / "tools" / "system_packages.sh"
LIBRARIES = ["libjpeg-dev", "libdeflate-dev", "zlib1g-dev", "libwebp-dev", "libtiff-dev"]


class Machine:
    """A PATH of made-up programs: `cc`, `pkg-config` and the like are there when they were added, and no others."""

    def __init__(self, folder):
        self.programs = folder / "bin"
        self.programs.mkdir()
        self.log = folder / "log"
        self.log.write_text("")
        for name in ("env", "sh"):
            self.programs.joinpath(name).symlink_to(shutil.which(name))

    def add(self, name, code="exit 0"):
        program = self.programs / name
        program.write_text(f'#!/bin/sh\necho "{name} $*" >>"{self.log}"\n{code}\n')
        program.chmod(0o755)

    def run(self, *pythons):
        self.log.write_text("")
        return subprocess.run(
            ["/bin/sh", SCRIPT, *(pythons or [sys.executable])],
            env=os.environ | {"PATH": str(self.programs)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
        )

    def calls(self, program):
        return [line for line in self.log.read_text().splitlines() if line.startswith(f"{program} ")]


@pytest.fixture
def machine(tmp_path):
    """A machine with apt and nothing to compile with, and a user who is not root."""
    machine = Machine(tmp_path)
    machine.add("apt-get")
    machine.add("id", "echo 1000")
    return machine


def with_compiler(machine):
    for name in ("cc", "c++", "make"):
        machine.add(name)


def test_user_is_told_what_to_type(machine):
    answer = machine.run()
    assert answer.returncode == 1
    command = answer.stderr.splitlines()[-1].strip()
    assert command.startswith(
        "sudo apt-get update && sudo apt-get install -y build-essential pkg-config libjpeg-dev"
    )
    assert set(LIBRARIES) < set(command.split())
    assert machine.calls("apt-get") == []


def test_root_installs_what_is_missing_after_an_update(machine):
    machine.add("id", "echo 0")
    with_compiler(machine)
    answer = machine.run()
    assert answer.returncode == 0, answer.stderr
    update, install = machine.calls("apt-get")
    assert update.endswith(" update")
    assert install.split()[-len(LIBRARIES) - 1 :] == ["pkg-config", *LIBRARIES]
    assert "build-essential" not in install


def test_sudo_without_a_password_is_used(machine):
    machine.add("sudo", 'shift; case "$1" in true) exit 0 ;; *) exec "$@" ;; esac')
    answer = machine.run()
    assert answer.returncode == 0, answer.stderr
    assert len(machine.calls("apt-get")) == 2
    assert all(call.startswith("sudo -n ") for call in machine.calls("sudo"))


def test_sudo_that_wants_a_password_is_not_waited_for(machine):
    machine.add("sudo", "exit 1")
    answer = machine.run()
    assert answer.returncode == 1
    assert "sudo apt-get install -y build-essential" in answer.stderr
    assert machine.calls("apt-get") == []


def test_failing_update_does_not_stop_and_failing_install_does(machine):
    machine.add("id", "echo 0")
    machine.add("apt-get", 'case "$*" in *update) exit 100 ;; *) exit 0 ;; esac')
    assert machine.run().returncode == 0
    machine.add("apt-get", 'case "$*" in *update) exit 0 ;; *) exit 100 ;; esac')
    assert machine.run().returncode == 100


def test_only_the_missing_library_is_installed(machine):
    machine.add("id", "echo 0")
    with_compiler(machine)
    machine.add("pkg-config", '[ "$2" != libtiff-4 ]')
    assert machine.run().returncode == 0
    assert machine.calls("apt-get")[-1].split()[-2:] == ["--no-install-recommends", "libtiff-dev"]


def test_complete_machine_is_left_alone(machine):
    with_compiler(machine)
    machine.add("pkg-config")
    answer = machine.run(sys.executable, "python3.98", "python3.99")
    assert (answer.returncode, answer.stdout, answer.stderr) == (0, "", "")
    assert machine.calls("apt-get") == []


def test_headers_of_every_python_and_venv_of_the_first(machine):
    machine.add("id", "echo 0")
    with_compiler(machine)
    machine.add("pkg-config")
    lacks = 'case "$*" in *" venv") echo python3.{0}-dev python3.{0}-venv ;; *" headers") echo python3.{0}-dev ;; esac'
    machine.add("python3.11", lacks.format(11))
    machine.add("python3.12", lacks.format(12))
    assert machine.run("python3.11", "python3.12", "python3.99").returncode == 0
    packages = machine.calls("apt-get")[-1].partition("--no-install-recommends ")[2].split()
    assert packages == ["python3.11-dev", "python3.11-venv", "python3.12-dev"]


def test_machine_without_apt_is_told_the_names(machine):
    (machine.programs / "apt-get").unlink()
    answer = machine.run()
    assert answer.returncode == 1
    assert "build-essential pkg-config libjpeg-dev" in answer.stderr


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("exit 1", "No Python named"),
        (
            'case "$*" in --version) echo Python 3.9.0 ;; *version_info*) exit 1 ;; esac',
            "is Python 3.9.0, and",
        ),
    ],
)
def test_wrong_python_is_refused(machine, code, said):
    machine.add("python3", code)
    answer = machine.run("python3")
    assert answer.returncode == 1
    assert said in answer.stderr
    assert "make ... PYTHON=" in answer.stderr
