"""Clients that behave badly, and others that must not notice."""

import concurrent.futures
import http.client
import json
import socket
import time

from server import Server, prompts, wait_until


def open_stream(server, max_tokens, prompt="Count: one, two, three,"):
    connection = socket.create_connection(("127.0.0.1", server.port), timeout=60)
    body = json.dumps(
        {"model": "", "prompt": prompt, "max_tokens": max_tokens, "temperature": 0, "stream": True}
    ).replace('"model": ""', f'"model": "{server.model()}"').encode()
    connection.sendall(
        b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: "
        + str(len(body)).encode() + b"\r\n\r\n" + body
    )
    return connection


def resident_kib(pid):
    with open(f"/proc/{pid}/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS"))


def test_vanishing_and_silent_clients():
    with Server() as server:
        expected = server.complete(prompts()[0], 24)
        before = resident_kib(server.process.pid)
        silent = [open_stream(server, 2000) for _ in range(5)]

        def vanish(_):
            connection = open_stream(server, 2000)
            connection.recv(1)
            connection.close()

        with concurrent.futures.ThreadPoolExecutor(32) as threads:
            list(threads.map(vanish, range(200)))
        assert server.complete(prompts()[0], 24) == expected
        for connection in silent:
            connection.close()
        server.wait_idle(60)
        assert resident_kib(server.process.pid) - before < 128 << 10, "memory of the gateway"


def test_half_open_connections():
    with Server() as server:
        idle = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(50)]
        partial = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(50)]
        for connection in partial:
            connection.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Le")
        server.complete(prompts()[0], 4)
        for connection in idle + partial:
            connection.close()
        server.wait_idle()


def test_disconnect_while_waiting_for_an_answer():
    with Server() as server:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
        connection.request("POST", "/v1/completions", json.dumps(
            {"model": server.model(), "prompt": "Once", "max_tokens": 4000, "temperature": 0}))
        wait_until(lambda: server.sum_of("switchyard_pool_requests_placed") == 1, 20, "the request runs")
        connection.close()
        server.wait_idle()


def test_logprobs_without_alternatives(server):
    body = {"model": server.model(), "prompt": "Hello", "max_tokens": 4, "logprobs": 0}
    status, answer = server.post("/v1/completions", body)
    assert status == 200 and len(answer["choices"][0]["logprobs"]["token_logprobs"]) == 4, answer


def error_of(server, path, body):
    status, answer = server.post(path, body)
    assert set(answer["error"]) >= {"message", "type"}, answer
    return status


def test_hostile_bodies(server):
    model = server.model()
    good = {"model": model, "prompt": "Hi", "max_tokens": 1}
    assert error_of(server, "/v1/completions", b"{") == 400
    assert error_of(server, "/v1/completions", b"\xff\xfe\x00") == 400
    assert error_of(server, "/v1/completions", b'{"model": "' + b"\xc3\x28" + b'", "prompt": "x"}') == 400
    assert error_of(server, "/v1/completions", b"[" * 100000) == 400
    assert error_of(server, "/v1/completions", {**good, "model": "no-such-model"}) == 404
    assert error_of(server, "/v1/completions", {**good, "prompt": 3}) == 400
    assert error_of(server, "/v1/completions", {**good, "max_tokens": -1}) == 400
    assert error_of(server, "/v1/completions", {**good, "max_tokens": 1e300}) == 400
    assert error_of(server, "/v1/completions", {**good, "temperature": "hot"}) == 400
    assert error_of(server, "/v1/completions", {**good, "prompt": [99999999]}) == 400
    assert error_of(server, "/v1/completions", {**good, "prompt": "word " * 20000}) == 400
    assert error_of(server, "/v1/chat/completions", {"model": model, "messages": []}) == 400
    assert error_of(server, "/v1/chat/completions", {"model": model, "messages": [{"role": 1}]}) == 400
    assert error_of(server, "/no/such/path", good) == 404
    assert server.complete("The capital of France is", 4)[0].startswith(" Paris")


def test_huge_body(server):
    connection = socket.create_connection(("127.0.0.1", server.port), timeout=60)
    size = 100 << 20
    connection.sendall(
        b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: "
        + str(size).encode() + b"\r\n\r\n"
    )
    try:
        for _ in range(size >> 16):
            connection.sendall(b" " * 65536)
    except OSError:
        pass  # refused in the middle
    try:
        answer = connection.recv(4096)
        assert answer.startswith(b"HTTP/1.1 413") or answer == b""
    except ConnectionError:
        pass
    finally:
        connection.close()
    assert server.complete("The capital of France is", 4)[0].startswith(" Paris")
