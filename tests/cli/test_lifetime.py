"""When `highway serve` and `highway work` end, what they log, and what `highway status` and --health show of them."""

import json
import re
import signal
import subprocess
import urllib.error
import urllib.request
from contextlib import suppress

import pytest
from commands import LIMIT, run
from concurrency import eventually
from pictures import class_folders

from highway.engine import Pipeline
from highway.modules import ZMQSource

ANY = "tcp://127.0.0.1:*"
SMALL = ("--size", "16", "--batch-size", "4")


@pytest.fixture
def photos(tmp_path):
    return class_folders(tmp_path / "photos", classes=2, each=10)


def address_of(line):
    return re.search(r"ZMQSink\('(tcp://[\d.]+:\d+)'", line)[1]


def ended(process):
    output, errors = process.communicate(timeout=LIMIT)
    return process.returncode, output, errors


def get(url):
    try:
        with urllib.request.urlopen(url, timeout=LIMIT) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def test_worker_that_nobody_needs_ends_and_says_why(start):
    work, _ = start(
        "work", "--from", "tcp://127.0.0.1:1", "--to", ANY, "--listen-to", "--exit-when-idle", 0.5
    )
    code, output, errors = ended(work)
    assert code == 0
    assert output.startswith(
        "Ending: no data machine and no receiver was connected for 0.5 s (--exit-when-idle).\n"
    )
    # Also where there is no terminal.
    assert re.match(
        r"\d{4}-\d\d-\d\d [\d:,]+ INFO tcp://127\.0\.0\.1:1: no connection yet; tries again", errors
    )


def test_data_machine_ends_after_its_training_machine_stopped_early(photos, start):
    data, line = start("serve", photos, "--to", ANY, *SMALL, "--exit-when-idle", 0.7)
    with Pipeline([ZMQSource(address_of(line))]) as pipeline:
        pipeline.dequeue(timeout=LIMIT)
        # While it is there, nobody is idle, whether or not it takes batches.
        with pytest.raises(subprocess.TimeoutExpired):
            data.wait(1.5)
    code, output, errors = ended(data)
    assert code == 0
    assert "no receiver was connected for 0.7 s (--exit-when-idle)" in output
    assert re.search(
        r"INFO tcp://127\.0\.0\.1:\d+: training machine \S+ \(from 127\.0\.0\.1, .*\) joined", errors
    )
    assert "left: stopped" in errors


def test_sigterm_ends_at_once_where_the_receiver_is_gone(photos, start):
    data, line = start("serve", photos, "--to", ANY, *SMALL, "--drain-timeout", LIMIT)
    with Pipeline([ZMQSource(address_of(line))]) as pipeline:
        pipeline.dequeue(timeout=LIMIT)
    # It has begun batches that nobody will take.
    while "left" not in data.stderr.readline():
        pass
    data.send_signal(signal.SIGTERM)
    code, output, _ = ended(data)
    assert code == 0
    assert re.search(
        r"^Ending: no receiver is connected; \d+ batch(es were| was) not received, the data machines make them again",
        output,
        re.MULTILINE,
    )


def test_status_shows_every_machine(photos, start, capsys):
    _, line = start("serve", photos, "--to", ANY, *SMALL)
    with Pipeline([ZMQSource(ANY, bind=True)]) as pipeline:
        address = pipeline.modules[0].address
        start("work", "--from", address_of(line), "--to", address)
        pipeline.dequeue(timeout=LIMIT)
        found = []

        def complete():
            code, output, errors = run(capsys, "status", address, "--json")
            assert (code, errors) == (0, "")
            found[:] = json.loads(output)["machines"]
            return [machine["role"] for machine in found] == ["data", "worker", "trainer"]

        eventually(complete)
        code, output, errors = run(capsys, "status", address)
    assert (code, errors) == (0, "")
    lines = output.splitlines()
    assert lines[0].split()[:4] == ["machine", "role", "batches/s", "MB/s"]
    assert [line.split()[:2] for line in lines[1:4]] == [
        [machine["name"], machine["role"]] for machine in found
    ]
    assert len(lines) >= 5


def test_status_where_nobody_listens_is_exit_code_1(capsys):
    code, output, errors = run(capsys, "status", "tcp://127.0.0.1:1", "--timeout", 0.3)
    assert (code, output) == (1, "")
    assert re.fullmatch(r"highway: status: nobody answered at tcp://127\.0\.0\.1:1 for 0\.3 s.*\n", errors)


def test_health_of_a_data_machine_over_its_life(photos, start):
    pytest.importorskip("prometheus_client", reason="the extra metrics is not installed")
    data, line = start("serve", photos, "--to", ANY, *SMALL, "--health", 0)
    health = re.search(r"; health at (http://127\.0\.0\.1:\d+)$", line)[1]
    assert get(f"{health}/healthz") == (200, "ok\n")
    assert get(f"{health}/readyz") == (503, "no machine is connected downstream\n")
    with Pipeline([ZMQSource(address_of(line))]) as pipeline:
        pipeline.dequeue(timeout=LIMIT)
        assert get(f"{health}/readyz") == (200, "ok\n")
        status, text = get(f"{health}/metrics")
        assert status == 200
        assert 'highway_peers{direction="downstream",role="data"} 1.0' in text
    data.send_signal(signal.SIGTERM)
    assert ended(data)[0] == 0
    with pytest.raises(OSError), suppress(urllib.error.HTTPError):
        get(f"{health}/healthz")


@pytest.mark.parametrize("text", ["", "x", ":80", "host:", "70000", "host:-1"])
def test_health_is_a_port_or_host_and_port(text, capsys):
    with pytest.raises(SystemExit):
        run(capsys, "serve", "photos", "--to", ANY, "--health", text)
    assert "is not PORT or HOST:PORT" in capsys.readouterr().err
