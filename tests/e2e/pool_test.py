"""Many models behind one prefill and one decode instance, which change between them in the middle of generation."""

import concurrent.futures
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request

import pytest

from server import MODEL, PROGRAM, ROOT, Server, children_of, wait_until

MODELS = 8
PROMPTS = [
    "The capital of France is", "Once upon a time there was a", "Write a list of animals:", "def fibonacci(n):",
    "The theory of relativity says that", "My favourite recipe for soup is", "In the year 2050 people will", "The moon is",
]
MAX_TOKENS = 64


@pytest.fixture(scope="module")
def catalogue(tmp_path_factory):
    """A configuration of eight models of two architectures."""
    folder = tmp_path_factory.mktemp("models")
    subprocess.run(
        [sys.executable, ROOT / "tools/make_models", MODEL, folder, "--copies", str(MODELS - 1), "--random", "1",
         "--layers", "6"],
        check=True, timeout=120, stdout=subprocess.DEVNULL)
    config = folder / "models.yaml"
    config.write_text(config.read_text() + "policy: quota\nlongest_quota: 15ms\nkv_memory: 16MiB\nhost_kv_memory: 64MiB\n")
    return config


def complete(server, model, prompt):
    status, answer = server.post("/v1/completions", {
        "model": model, "prompt": prompt, "max_tokens": MAX_TOKENS, "temperature": 0, "ignore_eos": True})
    assert status == 200, answer
    return answer["choices"][0]["text"]


@pytest.fixture(scope="module")
def alone(catalogue):
    """{(model, prompt): text}, asked one after the other."""
    with Server(config=catalogue) as server:
        return {(f"model-{m}", prompt): complete(server, f"model-{m}", prompt) for m in range(MODELS) for prompt in PROMPTS}


def ask_all(server, jobs):
    with concurrent.futures.ThreadPoolExecutor(len(jobs)) as threads:
        return list(threads.map(lambda job: complete(server, *job), jobs))


def test_models_differ(alone):
    for prompt in PROMPTS:
        assert len({alone[f"model-{m}", prompt] for m in range(MODELS)}) > MODELS // 2


@pytest.mark.parametrize("policy", ["quota", "slack"])
def test_interleaved_streams_are_as_alone(catalogue, alone, policy):
    jobs = list(alone)
    random.Random(policy).shuffle(jobs)
    with Server("--policy", policy, config=catalogue) as server:
        assert ask_all(server, jobs) == [alone[job] for job in jobs]
        switches = server.sum_of("switchyard_switches_total")
        assert switches > (100 if policy == "quota" else MODELS), switches
        assert server.sum_of("switchyard_pool_requests_failed_total") == 0
        server.wait_idle()


def test_killed_instances_cost_a_pause(catalogue, alone):
    jobs = list(alone)
    rng = random.Random(5)
    rng.shuffle(jobs)
    over = threading.Event()
    with Server(config=catalogue) as server:

        def kill():
            # So many that every stream is hit, and not so many that instances are held back for ever.
            for _ in range(12):
                if over.wait(rng.uniform(0.5, 1.5)):
                    return
                pid = rng.choice(list(server.instances().values()))
                if pid:
                    os.kill(pid, signal.SIGKILL)

        killer = threading.Thread(target=kill)
        killer.start()
        try:
            time.sleep(0.3)
            assert ask_all(server, jobs) == [alone[job] for job in jobs]
        finally:
            over.set()
            killer.join()
        wait_until(server.ready, 60, "all instances are back")
        server.wait_idle()


def test_models_come_and_go(catalogue, alone):
    with Server(config=catalogue) as server:
        path = str(catalogue.parent / "model-1.gguf")
        status, answer = server.post("/admin/models", {"name": "late", "path": path})
        assert status in (200, 201, 202), answer

        def ready():
            models = json.loads(server.get("/admin/models")[1])
            return any(each.get("id", each.get("name")) == "late" and each["state"] == "ready"
                       for each in models.get("data", models.get("models", [])))

        wait_until(ready, 30, "the model is ready")
        assert complete(server, "late", PROMPTS[0]) == alone["model-1", PROMPTS[0]]
        request = urllib.request.Request(server.url + "/admin/models/late", method="DELETE")
        with urllib.request.urlopen(request, timeout=30) as response:
            assert response.status in (200, 202, 204)
        status, answer = server.post("/v1/completions", {"model": "late", "prompt": "x", "max_tokens": 1})
        assert status == 404, answer
        server.wait_idle()


def test_a_model_that_is_broken_does_not_disturb_others(catalogue, alone, tmp_path):
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF" + bytes(1000))
    config = tmp_path / "models.yaml"
    config.write_text(f"""models:
  - {{name: model-0, path: {catalogue.parent / "model-0.gguf"}}}
  - {{name: broken, path: {broken}}}
""")
    with Server(config=config) as server:
        assert complete(server, "model-0", PROMPTS[0]) == alone["model-0", PROMPTS[0]]
        status, answer = server.post("/v1/completions", {"model": "broken", "prompt": "x", "max_tokens": 1})
        assert status == 503, answer
        assert "broken" in answer["error"]["message"]


def damage(image):
    """Other bytes in the same place; the time of the file stays."""
    times = os.stat(image)
    with open(image, "r+b") as file:
        for place in range(50_000, times.st_size, times.st_size // 20):
            file.seek(place)
            file.write(b"\xff" * 64)
    os.utime(image, ns=(times.st_atime_ns, times.st_mtime_ns))


def cut_short(image):
    os.truncate(image, os.stat(image).st_size // 2)


def test_damaged_images_are_made_anew(catalogue, alone, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    config = tmp_path / "models.yaml"
    # Room for one image: each is read from its file again when another one has been asked for.
    config.write_text("model_cache: 60MiB\nkv_memory: 16MiB\nmodels:\n" + "".join(
        f'  - {{name: model-{m}, path: {catalogue.parent / f"model-{m}.gguf"}}}\n' for m in range(4)))
    jobs = [(f"model-{m}", PROMPTS[m]) for m in range(4)]
    with Server(config=config) as server:
        for harm in (damage, cut_short):
            assert [complete(server, *job) for job in jobs] == [alone[job] for job in jobs]
            for image in (tmp_path / "cache/switchyard/images").glob("*.image"):
                harm(image)
            assert [complete(server, *job) for job in jobs] == [alone[job] for job in jobs], harm
        assert server.sum_of("switchyard_pool_requests_failed_total") == 0
        assert any("made anew" in line for line in server.log), "".join(server.log)


def test_an_image_that_cannot_be_made_anew_opens_the_breaker(catalogue, alone, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    lost = tmp_path / "lost.gguf"
    shutil.copy(catalogue.parent / "model-0.gguf", lost)
    config = tmp_path / "models.yaml"
    # Room for one image: whatever was read at the start, the other one takes its place.
    config.write_text(f"""model_cache: 60MiB
models:
  - {{name: model-0, path: {lost}}}
  - {{name: model-1, path: {catalogue.parent / "model-1.gguf"}}}
""")
    with Server(config=config) as server:
        assert complete(server, "model-1", PROMPTS[1]) == alone["model-1", PROMPTS[1]]
        for image in (tmp_path / "cache/switchyard/images").glob("*.image"):
            damage(image)
        away = lost.rename(tmp_path / "away")
        for _ in range(4):
            status, answer = server.post("/v1/completions", {"model": "model-0", "prompt": "x", "max_tokens": 1})
            assert status in (500, 503) and "damaged" in answer["error"]["message"], (status, answer)
        assert complete(server, "model-1", PROMPTS[1]) == alone["model-1", PROMPTS[1]]
        away.rename(lost)

        def again():
            return server.post("/v1/completions", {"model": "model-0", "prompt": "x", "max_tokens": 1})[0] == 200

        wait_until(again, 60, "the breaker closes")
        assert complete(server, "model-0", PROMPTS[0]) == alone["model-0", PROMPTS[0]]


def test_a_model_larger_than_the_cache_is_refused_at_once(catalogue, alone, tmp_path):
    small = f"model-{MODELS - 1}"
    config = tmp_path / "models.yaml"
    paths = {model: next(catalogue.parent.glob(model + "*")) for model in ("model-0", small)}
    config.write_text("model_cache: 40MiB\nmodels:\n" + "".join(
        f"  - {{name: {model}, path: {path}}}\n" for model, path in paths.items()))
    with Server(config=config) as server:
        for _ in range(3):
            status, answer = server.post("/v1/completions", {"model": "model-0", "prompt": "x", "max_tokens": 1})
            assert status == 503 and "MiB does not fit the model cache of 40.00 MiB" in answer["error"]["message"], answer
        assert complete(server, small, PROMPTS[0]) == alone[small, PROMPTS[0]]
    config.write_text(f"model_cache: 40MiB\nmodels:\n  - {{name: model-0, path: {paths['model-0']}}}\n")
    only = subprocess.run([PROGRAM, "serve", "--config", config, "--port", "0"],
                          capture_output=True, text=True, timeout=60)
    assert only.returncode != 0 and "set model_cache to 43MiB" in only.stdout + only.stderr, only


def test_an_instance_that_is_stopped_while_it_starts_is_replaced(catalogue, alone):
    server = Server(config=catalogue)
    victim = wait_until(lambda: children_of(server.process.pid), 30, "instances are started")[0]
    os.kill(victim, signal.SIGSTOP)
    with server:
        assert victim not in server.instances().values()
        assert complete(server, "model-0", PROMPTS[0]) == alone["model-0", PROMPTS[0]]


def test_too_many_requests_are_told_when_to_come_again(catalogue, tmp_path):
    config = tmp_path / "models.yaml"
    config.write_text(f"""models:
  - {{name: model-0, path: {catalogue.parent / "model-0.gguf"}, max_waiting: 2}}
""")
    with Server(config=config) as server:

        def ask(_):
            request = urllib.request.Request(
                server.url + "/v1/completions", headers={"Content-Type": "application/json"},
                data=json.dumps({"model": "model-0", "prompt": "word " * 900, "max_tokens": 2}).encode())
            try:
                with urllib.request.urlopen(request, timeout=120) as response:
                    return response.status, None
            except urllib.error.HTTPError as error:
                return error.code, error.headers["Retry-After"]

        with concurrent.futures.ThreadPoolExecutor(32) as threads:
            answers = list(threads.map(ask, range(32)))
        refused = [wait for status, wait in answers if status == 429]
        assert refused and all(int(wait) >= 1 for wait in refused), answers
        assert all(status in (200, 429) for status, _ in answers), answers
        server.wait_idle()


def test_a_reload_keeps_what_works(catalogue, alone, tmp_path):
    config = tmp_path / "models.yaml"
    good = f"models:\n  - {{name: model-0, path: {catalogue.parent / 'model-0.gguf'}}}\n"
    config.write_text(good)
    with Server(config=config) as server:
        assert complete(server, "model-0", PROMPTS[0]) == alone["model-0", PROMPTS[0]]
        config.write_text("")
        status, answer = server.post("/admin/reload", {})
        assert status == 400 and "names no model" in answer["error"]["message"], answer
        config.write_text(f"models:\n  - {{name: model-0, path: {tmp_path}/none.gguf}}\n"
                          f"  - {{name: other, path: {tmp_path}/nor.gguf}}\n")
        status, answer = server.post("/admin/reload", {})
        assert status == 200 and len(answer["warnings"]) == 2, answer
        assert complete(server, "model-0", PROMPTS[0]) == alone["model-0", PROMPTS[0]]
        wait_until(lambda: server.post("/v1/completions", {"model": "other", "prompt": "x"})[1]["error"]["code"] ==
                   "model_failed", 30, "the other model has failed")


def test_a_failed_model_is_tried_again_when_somebody_asks(catalogue, alone, tmp_path):
    late = tmp_path / "late.gguf"
    config = tmp_path / "models.yaml"
    config.write_text(f"""models:
  - {{name: model-0, path: {catalogue.parent / "model-0.gguf"}}}
  - {{name: late, path: {late}}}
""")
    with Server(config=config) as server:
        status, answer = server.post("/v1/completions", {"model": "late", "prompt": "x"})
        assert status == 503 and answer["error"]["code"] == "model_failed", answer
        os.link(catalogue.parent / "model-1.gguf", late)
        wait_until(lambda: server.post("/v1/completions", {"model": "late", "prompt": "x"})[0] == 200, 60,
                   "the model is served")
        assert complete(server, "late", PROMPTS[0]) == alone["model-1", PROMPTS[0]]


def test_more_choices_than_a_rate_holds_are_refused_for_good(catalogue, tmp_path):
    config = tmp_path / "models.yaml"
    config.write_text(f"""models:
  - {{name: model-0, path: {catalogue.parent / "model-0.gguf"}}}
admission: {{key_rate: {{per_second: 100, burst: 3}}}}
""")
    with Server(config=config) as server:
        body = {"model": "model-0", "prompt": "x", "max_tokens": 2}
        status, answer = server.post("/v1/completions", {**body, "n": 4})
        assert status == 400 and answer["error"]["param"] == "n" and "at most 3" in answer["error"]["message"], answer
        assert server.post("/v1/completions", {**body, "n": 3})[0] == 200
