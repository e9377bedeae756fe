"""`switchyard profile`, `switchyard bench pool` and tools/make_models, each with what the others made."""

import json
import os
import pathlib
import signal
import subprocess
import sys

import pytest

from server import MODEL, PROGRAM, ROOT, wait_until

POLICIES = "--policy" in subprocess.run([str(PROGRAM), "serve", "--help"], capture_output=True, text=True).stdout

# A server of canned streams, which takes the options of the real one and writes a trace.
FAKE = '''
import http.server, json, sys, time
options = dict(zip(sys.argv[1::2], sys.argv[2::2]))
policy = options["--policy"]
trace = open(options["--trace"], "w")
start = time.monotonic()

class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def answer(self, status, body, kind="application/json"):
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def do_GET(self):
        bodies = {"/health": {"instances": [{"role": "unified"}]}, "/v1/models": {"data": [{"id": "a"}, {"id": "b"}]}}
        self.answer(200, json.dumps(bodies[self.path]).encode())
    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        assert asked["ignore_eos"] and asked["stream"] and self.headers["Authorization"] == "Bearer key"
        if policy == "static" and asked["model"] == "b":
            return self.answer(429, b"{}")
        event = {"choices": [{"text": "x", "token_ids": list(range(asked["max_tokens"])), "finish_reason": "length"}]}
        now = time.monotonic() - start
        for line in ({"event": "switch", "from": "", "bytes": 10, "load_seconds": 0.01, "wait_seconds": 0, "hidden": True},
                     {"event": "turn", "kind": "prefill", "seconds": 0.01, "rows": 1, "tokens": 4}):
            print(json.dumps({"t": now, "instance": "unified-0", "model": asked["model"], **line}), file=trace, flush=True)
        self.answer(200, f"data: {json.dumps(event)}\\n\\ndata: [DONE]\\n\\n".encode(), "text/event-stream")
    def log_message(self, *unused):
        pass

http.server.ThreadingHTTPServer(("127.0.0.1", int(options["--port"])), Handler).serve_forever()
'''


def run(*arguments, **more):
    return subprocess.run([str(PROGRAM), *map(str, arguments)], capture_output=True, text=True, timeout=240, **more)


@pytest.fixture(scope="module")
def profile(tmp_path_factory):
    """(profile.csv, models.yaml) of the model here."""
    folder = tmp_path_factory.mktemp("profile")
    done = run("profile", "--model", MODEL, "--quick", "--threads", 2, "--output", folder / "p.csv", "--map", folder / "m.yaml")
    assert done.returncode == 0, done.stderr
    return folder / "p.csv", folder / "m.yaml"


def test_a_profile_is_simulated_as_it_is(profile, tmp_path):
    for more in ([], ["--generate", 3], ["--generate", 3, "--prefill", 1, "--decode", 1]):
        instances = [] if "--prefill" in more else ["--unified", 1]
        done = run("simulate", "--profile", profile[0], "--models", profile[1], "--input-mean", 50, "--output-mean", 20,
                   "--seconds", 60, "--rate", 0.2, *instances, *more, "--json", "-")
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["violations"] == []
    done = run("plan", "--profile", profile[0], "--mix", profile[1], "--input-mean", 50, "--output-mean", 20, "--seeds", 1)
    assert done.returncode == 0, done.stderr


def test_several_checkpoints_and_bad_ones(tmp_path):
    made = subprocess.run([sys.executable, ROOT / "tools/make_models", MODEL, tmp_path, "--copies", "1", "--random", "2",
                           "--layers", "2"], capture_output=True, text=True, timeout=60)
    assert made.returncode == 0, made.stderr
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache")}
    files = ["--output", tmp_path / "p.csv", "--map", tmp_path / "m.yaml"]
    done = run("profile", *(tmp_path / name for name in ("model-0.gguf", "model-1", "model-2")), "--quick", *files,
               env=environment)
    assert done.returncode == 0, done.stderr
    assert {line.split(",")[0] for line in (tmp_path / "p.csv").read_text().splitlines()[1:]} == {"model-0", "model-1", "model-2"}
    done = run("profile", tmp_path / "model-1", tmp_path / "model-1", *files, env=environment)
    assert done.returncode != 0 and "two checkpoints are called 'model-1'" in done.stderr
    assert run("profile", "/no/such", *files).returncode != 0
    # Different models, as their texts show.
    texts = [json.loads(run("generate", "--unified", "--greedy", "--json", "--max-tokens", 12, "--prompt", "Hello world",
                            "--model", tmp_path / name, env=environment).stdout)["token_ids"]
             for name in ("model-1", "model-2")]
    assert texts[0] != texts[1]


SMALL = ["--generate", 2, "--rate", 1, "--seconds", 4, "--input-mean", 20, "--output-mean", 8, "--max-prompt", 200,
         "--max-tokens", 30]


def test_measured_beside_predicted(profile, tmp_path):
    done = run("bench", "pool", *SMALL, "--simulate", profile[0], "--models", profile[1], "--kv-memory", "1GiB", "--json", "-",
               "--records", tmp_path / "r.jsonl", "--", "switchyard", "serve", "--model", MODEL, "--unified", "--threads", 2)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["requests"] == result["ended"] > 0 and result["failed"] == 0, result
    assert result["instances"]["unified"] == 1
    assert result["prediction"]["tokens"] == result["tokens"]
    assert {"attainment", "ttft_seconds_mean"} <= result["relative_difference"].keys()
    records = [json.loads(line) for line in (tmp_path / "r.jsonl").read_text().splitlines()]
    assert len(records) == result["requests"]
    for record in records:
        assert len(record["tokens"]) == record["output_tokens"] and record["status"] == 200


def test_a_running_server(server, tmp_path):
    rows = "\n".join(f"{i * 0.5},{name},{5 + i},{3 + i}" for i, name in enumerate(["x", server.model(), "y", "x"]))
    (tmp_path / "w.csv").write_text("time,model,input_tokens,output_tokens\n" + rows + "\n")
    done = run("bench", "pool", "--url", server.url, "--workload", tmp_path / "w.csv", "--speed", 4, "--plot", tmp_path / "p.svg")
    assert done.returncode == 0, done.stderr
    assert "attainment" in done.stdout and "tokens in time, by model" in (tmp_path / "p.svg").read_text()


def test_policies_side_by_side(tmp_path):
    (tmp_path / "fake.py").write_text(FAKE)
    command = ["bench", "pool", *SMALL, "--policies", "quota,slack,static", "--api-key", "key", "--plot", tmp_path / "p.svg",
               "--json", tmp_path / "r.json", "--", sys.executable, tmp_path / "fake.py"]
    done = run(*command)
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "r.json").read_text())
    assert [one["policy"] for one in results] == ["quota", "slack", "static"]
    assert results[0]["attainment"] == 1 and results[0]["switches"] == results[0]["requests"]
    assert results[2]["shed"] > 0
    assert "static" in done.stdout and (tmp_path / "p.svg").read_text().count("unified-0") == 3


@pytest.mark.skipif(not POLICIES, reason="this program's serve has no --policy")
def test_policies_of_the_real_server(tmp_path):
    subprocess.run([sys.executable, ROOT / "tools/make_models", MODEL, tmp_path, "--copies", "0", "--random", "3"],
                   check=True, timeout=60)
    done = run("bench", "pool", *SMALL, "--policies", "slack,request", "--json", tmp_path / "r.json", "--plot",
               tmp_path / "p.svg", "--serve-config", tmp_path / "models.yaml",
               env={**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache")})
    assert done.returncode == 0, done.stderr
    for result in json.loads((tmp_path / "r.json").read_text()):
        assert result["ended"] == result["requests"], result


def test_interruption_prints_what_was_measured(tmp_path):
    command = [str(PROGRAM), "bench", "pool", "--generate", "1", "--rate", "5", "--seconds", "60", "--input-mean", "8",
               "--output-mean", "4", "--json", "-", "--directory", str(tmp_path), "--", "switchyard", "serve", "--model",
               MODEL, "--unified", "--threads", "1"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    said = []

    def some_ended():
        said.append(process.stderr.readline())
        return "ended" in said[-1] and " 0 ended" not in said[-1]

    wait_until(some_ended, 90, "progress")
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=60)
    result = json.loads(out)
    assert process.returncode == 0 and result["interrupted"] and result["ended"] > 0 and result["cancelled"] > 0
    # Nothing of the server is left.
    log = pathlib.Path(tmp_path / "server.log").read_text()
    assert "stopping" in log, log


@pytest.mark.parametrize("arguments, expected", [
    (["--url", "http://127.0.0.1:1", "--generate", "1"], "not ready"),
    (["--url", "https://x", "--generate", "1"], "TLS"),
    (["--generate", "1", "--policies", "best", "--", "x"], "quota, request, static or slack"),
    (["--generate", "1", "--policies", "quota,slack"], "a server for each"),
    (["--generate", "1", "--", "/no/such/program"], "could not be run"),
    (["--generate", "1", "--", "switchyard", "serve", "--model", "/no/such.gguf"], "/no/such.gguf"),
    (["--workload", "missing.csv"], "missing.csv"),
    ([], "give --workload"),
    (["--generate", "1", "--simulate", "p.csv"], "needs --models"),
], ids=lambda value: " ".join(value)[:40] if isinstance(value, list) else "")
def test_bad_options_are_explained(arguments, expected):
    done = run("bench", "pool", *arguments)
    assert done.returncode in (1, 2) and done.stderr and expected in done.stderr, (done.returncode, done.stderr)
