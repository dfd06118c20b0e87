"""The files of examples/cluster/: shell and YAML that parse, and commands with options that exist."""

import re
import shlex
import subprocess

import pytest
from repository import ROOT

from highway.cli.commands import command_line

CLUSTER = ROOT / "examples" / "cluster"


def parsed(words):
    """Parse a command, without the program."""
    return command_line().parse_args([re.sub(r"\$\{?\w+\}?", "1", word) for word in words])


def commands_in(text):
    """The commands `highway ...` of a script or a service, as words."""
    text = re.sub(r"\\\n\s*", "", text)
    found = []
    for line in text.splitlines():
        at = re.search(r"(?:^\s*|ExecStart=\S*/|--exclude=\S+ +)highway (?=[a-z])", line)
        if at is not None and not line.startswith("#"):
            words = shlex.split(line[at.end() :])
            end = next((number for number, word in enumerate(words) if word in ("&", ">")), None)
            found.append(words[:end])
    return found


def documents(name):
    yaml = pytest.importorskip("yaml", reason="PyYAML is not installed")
    return list(yaml.safe_load_all((CLUSTER / name).read_text()))


def test_batch_script_is_valid_and_its_commands_exist():
    script = CLUSTER / "train.sbatch"
    subprocess.run(["bash", "-n", script], check=True, timeout=60)
    commands = commands_in(script.read_text())
    assert [command[0] for command in commands] == ["keygen", "serve", "work"]
    serve, work = (parsed(command) for command in commands[1:])
    assert serve.exit_when_idle == work.exit_when_idle == 300
    # The ports are those of each other.
    assert serve.to.rpartition(":")[2] == work.sources[0].rpartition(":")[2] == "5555"
    assert [address.rpartition(":")[2] for address in work.targets] == ["5556"]
    assert "tcp://*:5556" in script.read_text()


def test_workers_of_kubernetes_use_commands_probes_and_the_metric_that_exist():
    deployment, scaler = documents("kubernetes.yaml")
    pod = deployment["spec"]["template"]["spec"]
    (worker,) = pod["containers"]
    assert worker["command"][0] == "highway"
    options = parsed(worker["command"][1:])
    (port,) = worker["ports"]
    assert options.health == ("0.0.0.0", port["containerPort"])
    probes = worker["livenessProbe"]["httpGet"], worker["readinessProbe"]["httpGet"]
    assert [(probe["path"], probe["port"]) for probe in probes] == [
        ("/healthz", port["name"]),
        ("/readyz", port["name"]),
    ]
    assert pod["terminationGracePeriodSeconds"] > options.drain_timeout
    (variable,) = worker["env"]
    (copied,) = pod["initContainers"]
    assert copied["command"][-1] == variable["value"] and copied["command"][:3] == ["install", "-m", "600"]
    target = scaler["spec"]["scaleTargetRef"]
    assert (target["kind"], target["name"]) == (deployment["kind"], deployment["metadata"]["name"])
    (metric,) = scaler["spec"]["metrics"]
    (values,) = documents("prometheus-adapter.yaml")
    (rule,) = values["rules"]["custom"]
    assert metric["pods"]["metric"]["name"] == rule["name"]["as"]


def test_rule_of_the_adapter_names_metrics_that_workers_have():
    pytest.importorskip("prometheus_client", reason="the extra metrics is not installed")
    from highway.metrics import collector

    (values,) = documents("prometheus-adapter.yaml")
    (rule,) = values["rules"]["custom"]
    counters = {f"{name}_total" for name, *_ in collector._MODULE_COUNTERS}
    gauges = {name for name, *_ in collector._MODULE_GAUGES}
    named = set(re.findall(r"highway_\w+", rule["seriesQuery"] + rule["metricsQuery"]))
    assert named and named <= counters | gauges


def test_service_of_a_plain_host_is_the_one_of_the_page():
    text = (CLUSTER / "highway-worker.service").read_text()
    (command,) = commands_in(text)
    assert command[0] == "work"
    parsed(command)
    seconds = int(re.search(r"TimeoutStopSec=(\d+)", text)[1])
    assert seconds > parsed(command).drain_timeout
