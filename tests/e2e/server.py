"""A switchyard server of the test's own, and what tests ask of it."""

import collections
import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[2]
PROGRAM = pathlib.Path(os.environ.get("SWITCHYARD_PROGRAM", ROOT / "build/release/switchyard"))
MODEL = os.environ.get("SWITCHYARD_TEST_MODEL", "")


def wait_until(condition, seconds, what):
    """Polls until condition() is true; fails with `what` when it never is."""
    limit = time.monotonic() + seconds
    while time.monotonic() < limit:
        value = condition()
        if value:
            return value
        time.sleep(0.02)
    raise AssertionError(f"not within {seconds} s: {what}")


class Server:
    def __init__(self, *options, model=None, config=None):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        models = ["--config", str(config)] if config else ["--model", model or MODEL]
        command = [str(PROGRAM), "serve", *models, "--port", str(self.port), *options]
        self.log = []
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self.reader = threading.Thread(target=lambda: self.log.extend(self.process.stdout), daemon=True)
        self.reader.start()

    def __enter__(self):
        wait_until(self.ready, 60, "ready:\n" + "".join(self.log))
        return self

    def __exit__(self, *unused):
        self.stop()

    def stop(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        try:
            return self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise AssertionError("the server did not stop:\n" + "".join(self.log))
        finally:
            self.reader.join(5)

    def ready(self):
        assert self.process.poll() is None, "the server ended:\n" + "".join(self.log)
        try:
            instances = json.loads(self.get("/health")[1])["instances"]
            return instances and all(each["state"] == "ready" for each in instances)
        except OSError:
            return False

    def get(self, path):
        """(status, body) of a GET."""
        try:
            with urllib.request.urlopen(self.url + path, timeout=30) as response:
                return response.status, response.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def post(self, path, body, timeout=300):
        """(status, decoded JSON) of a POST; `body` is bytes or what becomes JSON."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        request = urllib.request.Request(
            self.url + path, data=data, headers={"Content-Type": "application/json"}
        )
        try:
            with urllib.request.urlopen(request, timeout=timeout) as response:
                return response.status, json.load(response)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)

    def complete(self, prompt, max_tokens=32, **more):
        """Greedy completion: (text, token ids)."""
        body = {"prompt": prompt, "max_tokens": max_tokens, "temperature": 0, "return_token_ids": True, **more}
        body["model"] = self.model()
        status, answer = self.post("/v1/completions", body)
        assert status == 200, answer
        choice = answer["choices"][0]
        return choice["text"], choice["token_ids"]

    def model(self):
        return json.loads(self.get("/v1/models")[1])["data"][0]["id"]

    def metrics(self):
        """{(name, labels as text): value}"""
        values = {}
        for line in self.get("/metrics")[1].splitlines():
            match = re.fullmatch(r"([a-zA-Z_:][\w:]*)(\{.*\})? (\S+)( \d+)?", line)
            if match:
                values[match[1], match[2] or ""] = float(match[3])
        return values

    def sum_of(self, name):
        return sum(value for (metric, _), value in self.metrics().items() if metric == name)

    def instances(self):
        """{name: process id} of the instances that /health shows."""
        body = json.loads(self.get("/health")[1])
        return {each["name"]: each["process"] for each in body["instances"]}

    def wait_idle(self, seconds=30):
        """Waits until no request and no KV block is held anywhere."""

        def idle():
            metrics = self.metrics()
            total = collections.Counter()
            for (name, _), value in metrics.items():
                total[name.removeprefix("switchyard_")] += value
            # Blocks of earlier prompts stay as long as nobody wants the memory.
            blocks = total["instance_kv_blocks_used"] - total["instance_prefix_blocks_unused"]
            left = total["pool_requests_waiting"] + total["pool_requests_placed"] + total["pool_departures"]
            reported = [name for (name, _) in metrics if name == "switchyard_instance_kv_blocks_used"]
            return len(reported) == len(self.instances()) and blocks + left + total["host_kv_bytes"] == 0

        try:
            wait_until(idle, seconds, "all KV blocks free")
        except AssertionError:
            held = {name: value for name, value in self.metrics().items() if value and any(word in name[0] for word in ("blocks", "pool_", "host_kv", "requests"))}
            raise AssertionError(f"still held after {seconds} s: {held}") from None


def children_of(pid):
    """Process ids of the direct children."""
    found = []
    for stat in pathlib.Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        if int(fields[1]) == pid:
            found.append(int(stat.parent.name))
    return found


def prompts():
    """Prompts of about 5 to 1500 tokens: prose, code, lists, other scripts."""
    prose = (
        "The harbour town woke slowly. Fishermen carried their nets to the boats, the baker opened his shutters, and "
        "the old lighthouse keeper counted the ships on the horizon, as he had done every morning for forty years. "
    )
    code = "def fib(n):\n    a, b = 0, 1\n    for _ in range(n):\n        a, b = b, a + b\n    return a\n\n"
    mixed = "Grüße aus Zürich! 東京は日本の首都です。 Привет, мир. 🚀🚀 1234567890\n"
    made = [
        "The capital of France is",
        "Once upon a time there was",
        "def main():\n    print(",
        "Water boils at a temperature of",
        "Q: What is 2 + 2?\nA:",
        "The quick brown fox jumps over",
        mixed,
        code,
    ]
    for repeat in (1, 2, 4, 8, 16, 24, 32):
        made.append(prose * repeat + "That day,")
    for repeat in (2, 6, 18):
        made.append(code * repeat + "def ")
    for repeat in (3, 12):
        made.append(mixed * repeat + "In English:")
    return made
