"""`highway serve` and `highway work`: real processes, and a training machine in the test."""

import re
import signal
import subprocess
import sys
import warnings
from collections import Counter
from contextlib import suppress

import pytest
from commands import LIMIT, run
from pictures import class_folders
from tars import shards_of_folder

from highway.cli import definitions, serve
from highway.engine import Pipeline
from highway.errors import ArgumentError, InsecureWarning, WaitTimeout
from highway.modules import Augmentations, ImageFileReader, TarReader, ZMQSource
from highway.transforms import FlipX, Normalize

# Long, and not about the interpreter.
pytestmark = pytest.mark.once

ANY = "tcp://127.0.0.1:*"
SMALL = ("--size", "16", "--batch-size", "4")
FILES = 30
BATCHES = 8  # of an epoch

STAGES = """
import os
from highway.engine import Stage
from highway.transforms import FlipX, Normalize
from neighbor import LOG

class Log(Stage):
    '''Writes down who works on which batch.'''

    def process(self, batch):
        with open(LOG, "a") as log:
            log.write(f"{os.getpid()} {batch.epoch} {batch.seq}\\n")
        return batch

train = [FlipX(), Normalize()]
logged = Log(workers=1)
numbers = [1, 2]
kind = FlipX
"""


@pytest.fixture
def photos(tmp_path):
    return class_folders(tmp_path / "photos", classes=3, each=FILES // 3)


@pytest.fixture
def stages(tmp_path):
    (tmp_path / "neighbor.py").write_text(f"LOG = {str(tmp_path / 'log')!r}\n")
    path = tmp_path / "stages.py"
    path.write_text(STAGES)
    yield path
    sys.modules.pop("neighbor", None)


def trainer(address=ANY, **options):
    """A training machine, and where it is."""
    source = ZMQSource(address, **({"bind": True, "timeout": LIMIT} | options))
    return Pipeline([source]), source.address


def port_of(line, module):
    return re.search(rf"{module}\('(tcp://[\d.]+:\d+)'", line)[1]


LOGGED = re.compile(r"^\d{4}-\d\d-\d\d [\d:,]+ (?:INFO|WARNING) .*\n", re.MULTILINE)


def ended(process):
    """Exit code, output and errors of a command that ends by itself; without its log."""
    output, errors = process.communicate(timeout=LIMIT)
    return process.returncode, output, LOGGED.sub("", errors)


def keys_of(batches):
    return Counter((batch.epoch, index) for batch in batches for index in batch.indices.tolist())


def every_sample(epochs):
    return Counter((epoch, index) for epoch in range(epochs) for index in range(FILES))


def bits(batches):
    return {
        (batch.epoch, batch.seq): (batch.images.tobytes(), batch.labels.tolist(), batch.keys)
        for batch in batches
    }


# What arrives


def test_serve_and_work_give_what_one_pipeline_gives(photos, stages, start):
    pipeline, address = trainer()
    with pipeline:
        data, line = start("serve", photos, "--to", ANY, "--epochs", 2, "--seed", 3, *SMALL)
        assert line.startswith(
            f"Serving {FILES} files in 3 classes, in {photos}, part 0 of 1: ImageFileReader("
        )
        work, line = start(
            *("work", "--from", port_of(line, "ZMQSink"), "--to", address),
            *("--transforms", f"{stages}:train", "--seed", 3),
        )
        assert line.startswith("Working: ZMQSource(")
        assert "FlipX(p=0.5), Normalize(" in line
        came = list(pipeline.forever())
    reader = ImageFileReader(photos, 4, (16, 16), epochs=2, seed=3)
    with Pipeline([reader, Augmentations([FlipX(), Normalize()], seed=3)]) as here:
        assert bits(came) == bits(here.forever())
    assert len(came) == 2 * BATCHES
    for process, module in ((data, "ImageFileReader"), (work, "Augmentations")):
        code, output, errors = ended(process)
        assert (code, errors) == (0, "")
        assert re.match(rf"\n{2 * BATCHES} batches \({2 * FILES} samples\) sent, [\d.]+ batches/s, ", output)
        assert re.search(rf"^{module} +\d(?: \(auto\))? +{2 * BATCHES} ", output, re.MULTILINE)


def test_serve_sends_the_samples_of_tar_shards(photos, start, tmp_path):
    keys = [*ImageFileReader(photos, 1, 8).known_keys()]
    tars = shards_of_folder(photos, keys, tmp_path / "tars", 2)
    pipeline, address = trainer()
    with pipeline:
        where = tmp_path / "tars" / "part-*.tar"
        data, line = start("serve", where, "--to", address, "--connect", "--epochs", 1, *SMALL)
        assert line.startswith(f"Serving {FILES} samples, in {where}, part 0 of 1: <TarReader of ")
        came = list(pipeline.forever())
    with Pipeline([TarReader(tars, 4, (16, 16), epochs=1)]) as here:
        assert bits(came) == bits(here.forever())
    assert ended(data)[0] == 0


def test_worker_flips_where_nothing_else_is_asked_for(photos, start):
    pipeline, address = trainer()
    with pipeline:
        _, line = start("serve", photos, "--to", ANY, "--epochs", 1, *SMALL)
        start("work", "--from", port_of(line, "ZMQSink"), "--to", address, "--workers", 1)
        came = list(pipeline.forever())
    with Pipeline([ImageFileReader(photos, 4, (16, 16), epochs=1), Augmentations([FlipX()])]) as here:
        assert bits(came) == bits(here.forever())


def test_parts_of_two_data_machines_are_the_whole(photos, start):
    lines = [
        start("serve", photos, "--to", ANY, "--epochs", 2, "--stream", f"{rank}/2", *SMALL)[1]
        for rank in range(2)
    ]
    assert ["part 0 of 2" in lines[0], "part 1 of 2" in lines[1]] == [True, True]
    pipeline, address = trainer(streams=2)
    with pipeline:
        sources = [word for line in lines for word in ("--from", port_of(line, "ZMQSink"))]
        start("work", *sources, "--to", address)
        assert keys_of(pipeline.forever()) == every_sample(2)


def test_every_end_may_listen_or_connect(photos, start):
    work, line = start("work", "--from", ANY, "--listen-from", "--to", ANY, "--listen-to")
    above, below = port_of(line, "ZMQSource"), port_of(line, "ZMQSink")
    assert above != below
    data, line = start("serve", photos, "--to", above, "--connect", "--epochs", 1, *SMALL)
    assert f"ZMQSink('{above}', bind=False)" in line
    pipeline, _ = trainer(below, bind=False)
    with pipeline:
        assert keys_of(pipeline.forever()) == every_sample(1)
    assert [ended(data)[0], ended(work)[0]] == [0, 0]


def test_all_addresses_of_a_machine_with_a_secret(photos, start, tmp_path, capsys):
    secret = tmp_path / "secret"
    assert run(capsys, "keygen", secret)[0] == 0
    _, line = start(
        *("serve", photos, "--to", "tcp://*:*", "--secret-file", secret, "--epochs", 1, "--window", 2, *SMALL)
    )
    address = port_of(line, "ZMQSink").replace("0.0.0.0", "127.0.0.1")
    pipeline, _ = trainer(address, bind=False, secret=secret)
    with pipeline:
        assert keys_of(pipeline.forever()) == every_sample(1)


def test_bad_files_are_named_at_the_end(photos, start):
    (photos / "class1" / "bad.jpg").write_bytes(b"no picture")
    data, line = start("serve", photos, "--to", ANY, "--epochs", 1, "--on-error", "skip", *SMALL)
    pipeline, _ = trainer(port_of(line, "ZMQSink"), bind=False)
    with pipeline:
        assert sum(batch.size for batch in pipeline) == FILES
    code, _, errors = ended(data)
    assert code == 0
    assert errors.startswith(f"{FILES + 1} files, of which 1 could not be read; skipped:\n")
    assert "bad.jpg" in errors


# How it ends


def test_sigterm_finishes_what_a_worker_began_and_another_takes_over(photos, stages, start, tmp_path):
    pipeline, address = trainer()
    with pipeline:
        _, line = start("serve", photos, "--to", ANY, "--epochs", 12, *SMALL)
        command = (
            "work",
            "--from",
            port_of(line, "ZMQSink"),
            "--to",
            address,
            "--transforms",
            f"{stages}:logged",
        )
        first, _ = start(*command)
        came = [pipeline.dequeue(timeout=LIMIT)]
        second, _ = start(*command)
        came += [pipeline.dequeue(timeout=LIMIT) for _ in range(5)]
        first.send_signal(signal.SIGTERM)
        assert first.stdout.readline() == "Ending: at most 30 s to finish the batches in progress.\n"
        # While what it began is not taken, it stays.
        with pytest.raises(subprocess.TimeoutExpired):
            first.wait(1)
        came += pipeline.forever()
    assert keys_of(came) == every_sample(12)
    code, output, errors = ended(first)
    assert (code, errors) == (0, "")
    assert re.search(r"\d+ batches \(\d+ samples\) sent", output)
    assert ended(second)[0] == 0
    # Nothing that the first one began was left to the second.
    lines = (tmp_path / "log").read_text().splitlines()
    assert max(Counter(line.split(maxsplit=1)[1] for line in lines).values()) == 1
    by = Counter(line.split()[0] for line in lines)
    assert by[str(first.pid)] >= 1
    assert by[str(second.pid)] >= 1
    assert sum(by.values()) == len(came)


def test_data_machine_that_ended_goes_on_where_it_was_when_it_is_started_again(photos, start):
    data, line = start("serve", photos, "--to", ANY, "--epochs", 12, *SMALL)
    address = port_of(line, "ZMQSink")
    pipeline, _ = trainer(address, bind=False)
    with pipeline:
        came = [pipeline.dequeue(timeout=LIMIT) for _ in range(3)]
        data.send_signal(signal.SIGTERM)
        assert data.stdout.readline().startswith("Ending")
        # What it began is received, and then it ends.
        while data.poll() is None:
            with suppress(WaitTimeout):
                came.append(pipeline.dequeue(timeout=0.1))
        assert ended(data)[0] == 0
        assert len(came) < 12 * BATCHES
        start("serve", photos, "--to", address, "--epochs", 12, *SMALL)
        came += pipeline.forever()
    assert keys_of(came) == every_sample(12)


@pytest.fixture
def busy(photos, start):
    """A data machine whose training machine takes one batch, and then no other."""
    pipelines = []

    def begin(*options):
        data, line = start("serve", photos, "--to", ANY, *SMALL, *options)
        pipeline, _ = trainer(port_of(line, "ZMQSink"), bind=False)
        pipelines.append(pipeline)
        pipeline.dequeue(timeout=LIMIT)
        return data

    yield begin
    for pipeline in pipelines:
        pipeline.stop()


def test_what_cannot_be_finished_in_time_is_one_line_and_exit_code_1(busy):
    data = busy("--drain-timeout", 0.3)
    data.send_signal(signal.SIGTERM)
    code, output, errors = ended(data)
    assert code == 1
    assert output == "Ending: at most 0.3 s to finish the batches in progress.\n"
    assert re.fullmatch(
        r"highway: The batches in progress were not received within 0\.3 s \(--drain-timeout\); .*\n", errors
    )


def test_second_signal_ends_at_once(busy):
    data = busy("--drain-timeout", 600)
    data.send_signal(signal.SIGTERM)
    assert data.stdout.readline().startswith("Ending")
    data.send_signal(signal.SIGTERM)
    code, output, errors = ended(data)
    assert (code, errors) == (130, "Interrupted: other machines take over the batches in progress.\n")
    assert "batches" in output


@pytest.mark.parametrize("command", ["serve", "work"])
def test_ctrl_c_ends_at_once(photos, start, command):
    if command == "serve":
        process, _ = start("serve", photos, "--to", ANY, *SMALL)
    else:
        process, _ = start("work", "--from", "tcp://127.0.0.1:1", "--to", ANY, "--listen-to")
    process.send_signal(signal.SIGINT)
    code, output, errors = ended(process)
    assert (code, errors) == (130, "Interrupted: other machines take over the batches in progress.\n")
    assert "\n0 batches (0 samples) sent" in output


def test_sigterm_without_anybody_there_is_the_end(photos, start):
    data, _ = start("serve", photos, "--to", ANY, *SMALL)
    data.send_signal(signal.SIGTERM)
    assert ended(data)[0] == 0


def test_signal_before_the_pipeline_is_there_counts(photos, capsys, monkeypatch):
    class Told(ImageFileReader):
        def __init__(self, *arguments, **options):
            signal.raise_signal(signal.SIGTERM)
            super().__init__(*arguments, **options)

    monkeypatch.setattr("highway.modules.ImageFileReader", Told)
    code, output, _ = run(capsys, "serve", photos, "--to", ANY, *SMALL)
    assert code == 0
    assert [line.split()[0] for line in output.splitlines()[:2]] == ["Serving", "Ending:"]


def test_handler_of_signals_is_put_back():
    before = signal.getsignal(signal.SIGTERM)
    with serve.Ending() as ending:
        assert not ending.asked
        signal.raise_signal(signal.SIGTERM)
        assert ending.asked
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is before


def test_worker_ends_where_no_data_machine_is_for_as_long_as_allowed(start):
    pipeline, address = trainer()
    with pipeline:
        work, _ = start("work", "--from", "tcp://127.0.0.1:1", "--to", address, "--timeout", 0.3)
        code, _, errors = ended(work)
    assert code == 1
    assert re.fullmatch(
        r"highway: ZMQSource: no data machine was connected for 0\.3 s \(timeout\), at tcp://127.*\n", errors
    )


# Errors


def wrong(capsys, *arguments):
    """The one line of a command that cannot work."""
    code, output, errors = run(capsys, *arguments)
    assert (code, output) == (1, "")
    assert re.fullmatch(r"highway: .*\n", errors)
    return errors


def work_with(capsys, path, name="train", *options):
    return wrong(
        capsys, "work", "--from", "ipc://a", "--to", "ipc://b", "--transforms", f"{path}:{name}", *options
    )


def test_file_of_transforms_that_is_not_there(capsys, tmp_path):
    assert f"{tmp_path}/no.py: there is no such file" in work_with(capsys, tmp_path / "no.py")
    assert "there is no such file" in work_with(capsys, tmp_path)


def test_name_that_is_not_there_and_those_that_are(capsys, stages, tmp_path):
    assert "the file has no 'trian'; found train, logged\n" in work_with(capsys, stages, "trian")
    (tmp_path / "empty.py").write_text("x = 1\n")
    assert "it has no list of transforms" in work_with(capsys, tmp_path / "empty.py", "train")


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("numbers", "numbers is a list of int;"),
        ("kind", "kind is the class FlipX itself"),
        ("LOG", "type str"),
    ],
)
def test_name_of_something_else(capsys, stages, name, says):
    assert says in work_with(capsys, stages, name)


def test_stages_have_their_own_arguments(capsys, stages):
    assert "--workers are for transforms" in work_with(capsys, stages, "logged", "--workers", 2)
    assert "--workers are for transforms" in work_with(capsys, stages, "logged", "--seed", 2)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("\n\n1 / 0\n", "stages.py, line 3: ZeroDivisionError: division by zero"),
        (
            "import no_such_module\n",
            "stages.py, line 1: ModuleNotFoundError: No module named 'no_such_module'",
        ),
        ("train = [\n", "stages.py: SyntaxError: "),
    ],
)
def test_file_that_fails(capsys, stages, text, says):
    stages.write_text(text)
    assert says in work_with(capsys, stages)


def test_lists_of_a_file(stages):
    (train,) = definitions.stages_in(stages, "train", 5, 2)
    assert isinstance(train, Augmentations)
    assert (train.seed, train.workers, len(train.transforms)) == (5, 2, 2)
    (logged,) = definitions.stages_in(stages, "logged", None, None)
    assert type(logged).__name__ == "Log"
    stages.write_text("none = []\n")
    assert definitions.stages_in(stages, "none", 5, None) == []


def test_transforms_are_checked(stages):
    stages.write_text("from highway.transforms import FlipX\ntrain = [FlipX(), FlipX]\n")
    with pytest.raises(ArgumentError, match="the class FlipX itself"):
        definitions.stages_in(stages, "train", None, None)


def test_no_secret_where_others_can_reach_it(capsys, photos, monkeypatch, tmp_path):
    monkeypatch.delenv("HIGHWAY_SECRET_FILE", raising=False)
    line = wrong(capsys, "serve", photos, "--to", "tcp://*:0")
    assert "there is no secret" in line
    assert line.endswith("(here: --secret-file FILE, or --insecure)\n")
    line = wrong(capsys, "work", "--from", "tcp://10.0.0.1:5555", "--to", "tcp://10.0.0.2:5555")
    assert "ZMQSource: tcp://10.0.0.1:5555 can be reached" in line
    line = wrong(capsys, "serve", photos, "--to", "tcp://*:0", "--secret-file", tmp_path / "secret")
    assert "No such file" in line
    assert "--insecure" not in line


def test_insecure_is_said_in_one_line(capsys, photos):
    with warnings.catch_warnings():
        warnings.simplefilter("error", InsecureWarning)
        code, _, errors = run(capsys, "serve", photos, "--to", "tcp://203.0.113.1:5555", "--insecure")
    first, second = errors.splitlines()
    assert code == 1
    assert re.fullmatch(r"highway: ZMQSink: tcp://203\.0\.113\.1:5555 is used without a secret: .*", first)
    assert re.fullmatch(r"highway: ZMQSink: .* is no address of this machine; .*", second)


def test_address_that_is_none_or_in_use(capsys, photos, start):
    assert "it has no port" in wrong(capsys, "serve", photos, "--to", "tcp://127.0.0.1")
    _, line = start("serve", photos, "--to", ANY)
    assert "is in use" in wrong(capsys, "serve", photos, "--to", port_of(line, "ZMQSink"))
    two = ("--from", "ipc://a", "--from", "ipc://b")
    with pytest.raises(SystemExit):
        run(capsys, "serve", photos, "--to", "inproc://x")
    assert "cannot be reached from another process" in capsys.readouterr().err
    assert "needs exactly one --from" in wrong(capsys, "work", *two, "--listen-from", "--to", "ipc://c")


def test_folder_that_is_none(capsys, tmp_path):
    assert "does not exist" in wrong(capsys, "serve", tmp_path / "no", "--to", ANY)
