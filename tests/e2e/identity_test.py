"""The same greedy tokens whatever carries the KV, whoever computes it, and whoever is in the batch."""

import concurrent.futures

import pytest

from server import Server, prompts

MAX_TOKENS = 24


@pytest.fixture(scope="module")
def expected():
    with Server("--unified") as server:
        return [server.complete(prompt, MAX_TOKENS) for prompt in prompts()]


def test_prompts_cover_short_and_long(server):
    lengths = []
    for prompt in prompts():
        status, answer = server.post("/v1/completions", {"model": server.model(), "prompt": prompt, "max_tokens": 1})
        assert status == 200, answer
        lengths.append(answer["usage"]["prompt_tokens"])
    assert len(lengths) >= 20 and min(lengths) <= 6 and max(lengths) >= 1300, lengths


@pytest.mark.parametrize("fabric", ["shm", "net", "tcp;ofi_rxm"])
def test_alone(expected, fabric):
    with Server("--fabric", fabric) as server:
        for prompt, one in zip(prompts(), expected):
            assert server.complete(prompt, MAX_TOKENS) == one
        server.wait_idle()


@pytest.mark.parametrize("options", [["--fabric", "shm"], ["--fabric", "net"], ["--unified"]], ids=str)
def test_together(expected, options):
    with Server(*options) as server:
        with concurrent.futures.ThreadPoolExecutor(len(expected)) as threads:
            answers = list(threads.map(lambda prompt: server.complete(prompt, MAX_TOKENS), prompts()))
        assert answers == expected
        server.wait_idle()


def test_in_little_memory(expected):
    """Requests that lose their blocks to others are replayed, with the same tokens."""
    with Server("--kv-memory", "48MiB") as server:
        chosen = [i for i, prompt in enumerate(prompts()) if len(prompt) < 4000]
        with concurrent.futures.ThreadPoolExecutor(2 * len(chosen)) as threads:
            answers = list(threads.map(lambda i: server.complete(prompts()[i], MAX_TOKENS), chosen + chosen))
        assert answers == [expected[i] for i in chosen + chosen]
        server.wait_idle()
