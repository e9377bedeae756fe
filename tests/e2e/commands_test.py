"""The program's commands as a user types them, with good input and bad."""

import json
import os
import random
import signal
import subprocess
import time

import pytest

from server import MODEL, PROGRAM


def run(*arguments, **more):
    return subprocess.run([str(PROGRAM), *arguments], capture_output=True, text=True, timeout=120, **more)


def test_generate_json():
    for mode in ([], ["--unified"]):
        done = run("generate", "--model", MODEL, "--prompt", "The capital of France is", "--greedy", "--max-tokens",
                   "8", "--json", *mode)
        assert done.returncode == 0, done.stderr
        answer = json.loads(done.stdout)
        assert answer["text"].startswith(" Paris") and len(answer["token_ids"]) == 8


def test_generate_several_prompts_in_order():
    done = run("generate", "--model", MODEL, "--greedy", "--max-tokens", "4", "--json",
               "--prompt", "One, two,", "--prompt", "The capital of France is")
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(lines) == 2 and lines[1]["text"].startswith(" Paris")


def test_generate_chat():
    done = run("generate", "--model", MODEL, "--chat", "--greedy", "--prompt", "What is the capital of France?")
    assert done.returncode == 0 and "Paris" in done.stdout, done.stderr


def test_inspect_and_doctor_print_json():
    assert json.loads(run("inspect", MODEL, "--json").stdout)
    findings = json.loads(run("doctor", "--json").stdout)["findings"]
    assert {"CPU", "GPU", "RDMA", "Fabric shm", "Fabric net"} <= {finding["area"] for finding in findings}


@pytest.mark.parametrize("arguments", [
    ["generate", "--prompt", ""],
    ["generate"],
    ["generate", "--prompt", "x", "--fabric", "carrier-pigeon"],
    ["generate", "--prompt", "x", "--kv-memory", "lots"],
    ["generate", "--prompt", "x", "--kv-memory", "1KiB"],
    ["generate", "--prompt", "x", "--kv-memory", "99TiB"],
    ["generate", "--prompt-file", "/tmp"],
    ["generate", "--prompt", "x", "--temperature", "-3"],
    ["generate", "--prompt", "word " * 20000],
], ids=lambda arguments: " ".join(arguments)[:40])
def test_bad_options_are_explained(arguments):
    done = run(*arguments, "--model", MODEL)
    assert done.returncode in (1, 2) and done.stderr.startswith("switchyard: "), (done.returncode, done.stderr)


def test_missing_model():
    done = run("serve", "--port", "0", "--model", "/no/such/model.gguf")
    assert done.returncode == 1 and "/no/such/model.gguf" in done.stderr


def expect_refused(path):
    done = run("inspect", str(path))
    assert done.returncode in (1, 2) and done.stderr.startswith("switchyard: "), (done.returncode, done.stderr[-500:])


def test_truncated_checkpoints(tmp_path):
    whole = open(MODEL, "rb").read()
    path = tmp_path / "model.gguf"
    for size in (0, 3, 8, 100, 5000, 500000, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        expect_refused(path)


def test_flipped_bits_never_crash(tmp_path):
    header = bytearray(open(MODEL, "rb").read(4 << 20))
    rest = open(MODEL, "rb").read()[4 << 20:]
    rng = random.Random(1)
    path = tmp_path / "model.gguf"
    for _ in range(12):
        damaged = bytearray(header)
        for _ in range(4):
            damaged[rng.randrange(2000 if rng.random() < 0.5 else len(damaged))] ^= 1 << rng.randrange(8)
        path.write_bytes(damaged + rest)
        done = run("inspect", str(path))
        assert done.returncode in (0, 1, 2), (done.returncode, done.stderr[-500:])


def test_junk_is_refused(tmp_path):
    (tmp_path / "junk.safetensors").write_bytes(b"\xff" * 1000)
    expect_refused(tmp_path / "junk.safetensors")
    (tmp_path / "empty").mkdir()
    expect_refused(tmp_path / "empty")


def test_a_damaged_image_is_made_anew(tmp_path):
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path)}
    arguments = ["generate", "--model", MODEL, "--unified", "--prompt", "The capital of France is", "--greedy",
                 "--max-tokens", "8", "--json"]
    first = run(*arguments, env=environment)
    image = next((tmp_path / "switchyard" / "images").glob("*.image"))
    with open(image, "r+b") as file:
        file.seek(image.stat().st_size // 2)
        file.write(b"\x55" * 100000)
    assert run(*arguments, env=environment).stdout == first.stdout and " Paris" in first.stdout


def test_bad_configuration(tmp_path):
    config = tmp_path / "bad.yaml"
    config.write_text("model: x\nprot: 80\n")
    done = run("serve", "--config", str(config))
    assert done.returncode == 2 and "line 2" in done.stderr and "prot" in done.stderr, done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("after", [0.02, 0.1, 0.2, 0.3, 0.6])
def test_a_server_stops_in_order_at_any_time(number, after):
    # The moment decides what is interrupted, not whether this passes.
    process = subprocess.Popen([str(PROGRAM), "serve", "--port", "0", "--kv-memory", "64MiB", "--model", MODEL],
                               stderr=subprocess.PIPE, text=True)
    time.sleep(after)
    process.send_signal(number)
    log = process.communicate(timeout=30)[1]
    assert process.returncode == 0, log
    assert all(" info " in line for line in log.splitlines()), log


def first_line_with(process, word):
    lines = []
    for line in process.stderr:
        lines.append(line)
        if word in line:
            return
    raise AssertionError("".join(lines))


def test_a_server_stops_in_the_middle_of_an_image(tmp_path):
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path)}
    process = subprocess.Popen([str(PROGRAM), "serve", "--port", "0", "--model", MODEL], stderr=subprocess.PIPE,
                               text=True, env=environment)
    first_line_with(process, "preparing")
    process.send_signal(signal.SIGINT)
    log = process.communicate(timeout=30)[1]
    assert process.returncode == 0, log
    assert not [path for path in tmp_path.rglob("*") if ".tmp." in path.name], list(tmp_path.rglob("*"))


def test_a_server_stops_in_the_middle_of_a_download(tmp_path):
    programs = tmp_path / "bin"
    programs.mkdir()
    begun = tmp_path / "begun"
    (programs / "python3").write_text(f"#!/bin/sh\necho > {begun}\nexec sleep 100\n")
    (programs / "python3").chmod(0o755)
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache"), "PATH": f"{programs}:{os.environ['PATH']}"}
    process = subprocess.Popen([str(PROGRAM), "serve", "--port", "0"], stderr=subprocess.PIPE, text=True,
                               env=environment)
    limit = time.monotonic() + 30
    while not begun.exists():
        assert process.poll() is None and time.monotonic() < limit
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    log = process.communicate(timeout=30)[1]
    assert process.returncode == 0 and "failed" not in log, log
    assert not list((tmp_path / "cache").rglob(".pull-*"))
