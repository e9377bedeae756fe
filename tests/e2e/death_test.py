"""Processes that are killed, and what their clients see: a pause."""

import concurrent.futures
import json
import os
import random
import signal
import time

import openai
import pytest

from server import Server, children_of, prompts, wait_until

STREAMS = 16
MAX_TOKENS = 64


def stream_text(server, prompt):
    client = openai.OpenAI(base_url=server.url + "/v1", api_key="none", timeout=300, max_retries=0)
    parts = []
    for chunk in client.completions.create(
        model=server.model(), prompt=prompt, max_tokens=MAX_TOKENS, temperature=0, stream=True
    ):
        parts.append(chunk.choices[0].text)
    return "".join(parts)


@pytest.mark.parametrize("role", ["prefill", "decode", "both"])
def test_kill_during_streams(role):
    chosen = [prompt for prompt in prompts() if len(prompt) < 2500]
    chosen = [chosen[i % len(chosen)] for i in range(STREAMS)]
    with Server() as server:
        alone = {prompt: stream_text(server, prompt) for prompt in chosen}
        expected = [alone[prompt] for prompt in chosen]
        rng = random.Random(role)
        with concurrent.futures.ThreadPoolExecutor(STREAMS) as threads:
            for _ in range(2):
                futures = [threads.submit(stream_text, server, prompt) for prompt in chosen]
                for _ in range(3):
                    time.sleep(rng.uniform(0.05, 1.0))  # any moment will do
                    instances = server.instances()
                    victims = [name for name in instances if role in ("both", name.split("-")[0])]
                    victim = instances[rng.choice(victims)]
                    if victim:
                        os.kill(victim, signal.SIGKILL)
                assert [future.result() for future in futures] == expected
        wait_until(server.ready, 30, "all instances are back")
        server.wait_idle()


def test_frozen_instance_is_replaced():
    with Server() as server:
        prompt = prompts()[1]
        expected = stream_text(server, prompt)
        frozen = server.instances()["decode-0"]
        os.kill(frozen, signal.SIGSTOP)
        assert stream_text(server, prompt) == expected
        wait_until(server.ready, 30, "the instance is back")
        assert server.instances()["decode-0"] != frozen
        server.wait_idle()


def test_nothing_outlives_a_killed_supervisor():
    server = Server()
    with server:
        children = children_of(server.process.pid)
        assert len(children) == 2
        server.process.kill()
        server.process.wait(10)
        for child in children:
            wait_until(lambda pid=child: not os.path.exists(f"/proc/{pid}"), 10, f"process {child} ends")


def test_clean_stop():
    with Server() as server:
        children = children_of(server.process.pid)
        with concurrent.futures.ThreadPoolExecutor(1) as threads:
            running = threads.submit(server.post, "/v1/completions", {
                "model": server.model(), "prompt": "One, two, three,", "max_tokens": 4000, "temperature": 0})
            wait_until(lambda: server.sum_of("switchyard_pool_requests_placed") == 1, 20, "the request runs")
            assert server.stop() == 0
            try:
                running.result()
            except (OSError, json.JSONDecodeError):
                pass  # cut off: the server was told to stop
        assert not any(os.path.exists(f"/proc/{child}") for child in children)
