"""`switchyard simulate` and `switchyard plan`, with good input and bad."""

import json
import subprocess

import pytest

from server import PROGRAM

MAP = """
models:
  - name: "*"
    times: {prefill_base: 10, prefill_token: 0.02, decode_base: 9, decode_row: 0.05}
    bytes: 10GB
    count: 4
    rate: 0.2
"""


def run(*arguments):
    return subprocess.run([str(PROGRAM), *map(str, arguments)], capture_output=True, text=True, timeout=120)


@pytest.fixture
def files(tmp_path):
    (tmp_path / "map.yaml").write_text(MAP)
    rows = [f"{i * 0.7:.2f},m{i % 3},{100 + i},{20 + i}" for i in range(30)]
    (tmp_path / "work.csv").write_text("time,model,input_tokens,output_tokens\n" + "\n".join(rows) + "\n")
    return tmp_path


MACHINE = ["--memory", "80GiB", "--link", "20GB"]


def test_simulate_prints_one_object(files):
    done = run("simulate", "--workload", files / "work.csv", "--models", files / "map.yaml", *MACHINE, "--prefill", 1,
               "--decode", 1, "--policy", "quota", "--ttft", "10s", "--tbt", "100ms", "--json", "-", "--plot", files / "p.svg")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert {"policy", "models", "requests", "attainment", "strict_attainment", "goodput_rps", "switches",
            "switch_seconds_p50"} <= result.keys()
    assert (result["policy"], result["models"], result["requests"]) == ("quota", 3, 30)
    assert result["violations"] == [] and result["unfinished"] == 0
    assert (files / "p.svg").read_text().startswith("<svg")


def test_simulate_is_deterministic(files):
    command = ["simulate", "--generate", 6, "--rate", 0.2, "--seconds", 60, "--models", files / "map.yaml", *MACHINE,
               "--unified", 1, "--policy", "slack", "--policy", "request", "--json", "-", "--seed"]
    first = run(*command, 5)
    assert first.returncode == 0, first.stderr
    assert [one["policy"] for one in json.loads(first.stdout)] == ["slack", "request"]
    assert first.stdout == run(*command, 5).stdout != run(*command, 6).stdout


def test_plan(files):
    done = run("plan", "--mix", files / "map.yaml", *MACHINE, "--seconds", 100, "--seeds", 1, "--json", "-")
    assert done.returncode == 0, done.stderr
    plan = json.loads(done.stdout)
    assert plan["gpus"] == 1 and plan["gpus_one_deployment_per_model"] == 4


@pytest.mark.parametrize("change, expected", [
    (["--workload", "missing.csv"], "missing.csv"),
    (["--policy", "best"], "quota, request, static or slack"),
    (["--ttft", "soon"], "--ttft"),
    (["--memory", "15GB"], "no memory for KV"),
    (["--prefill", "2"], "prefill and decode instances need each other"),
    (["--models", "missing.yaml"], "missing.yaml"),
], ids=lambda value: value[0] if isinstance(value, list) else "")
def test_bad_input_is_explained(files, change, expected):
    options = {"--workload": files / "work.csv", "--models": files / "map.yaml", "--memory": "80GiB", "--link": "20GB",
               "--unified": 1}
    options[change[0]] = change[1]
    if change[0] == "--prefill":
        del options["--unified"]
    done = run("simulate", *[part for pair in options.items() for part in pair])
    assert done.returncode in (1, 2) and done.stderr.startswith("switchyard: "), (done.returncode, done.stderr)
    assert expected in done.stderr
