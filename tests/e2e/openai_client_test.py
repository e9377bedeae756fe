"""The official OpenAI client against a running gateway.

    SWITCHYARD_URL=http://127.0.0.1:8000 python3 tests/e2e/openai_client_test.py [NAME...]

Needs the `openai` package. pytest runs the file too, without SWITCHYARD_URL against a server of its own. SWITCHYARD_API_KEY: the key, if the server wants one.
SWITCHYARD_MODEL: the model, else the first that the server lists. Tests called test_model_* expect what a trained
model answers; they are skipped on the toy server (model "toy"), which says "Hello world", or what follows "say ".
Tests called test_toy_* are for the toy server alone.
"""

import concurrent.futures
import os
import sys
import traceback

import openai

KEY = os.environ.get("SWITCHYARD_API_KEY")
QUESTION = [{"role": "user", "content": "What is the capital of France? Answer in one word."}]

client = None


def connect(url):
    global client
    client = openai.OpenAI(base_url=url.rstrip("/") + "/v1", api_key=KEY or "none", max_retries=0, timeout=120)


if "pytest" in sys.modules:
    import pytest

    @pytest.fixture(scope="module", autouse=True)
    def connected(request):
        connect(os.environ.get("SWITCHYARD_URL") or request.getfixturevalue("server").url)



class Skip(Exception):
    pass


def skip(reason):
    if "pytest" in sys.modules:
        pytest.skip(reason)
    raise Skip(reason)


def served_model():
    wanted = os.environ.get("SWITCHYARD_MODEL")
    ids = [model.id for model in client.models.list()]
    if wanted:
        return wanted
    return "toy" if "toy" in ids else ids[0]


def trained_model():
    model = served_model()
    if model == "toy":
        skip("the toy server has no trained model")
    return model


def toy_model():
    if served_model() != "toy":
        skip("only the toy server answers this way")
    return "toy"


def expect_error(kind, call, *, param=None, code=None):
    try:
        call()
    except kind as error:
        if param is not None:
            assert error.param == param, (error.param, error.message)
        if code is not None:
            assert error.code == code, (error.code, error.message)
        return error
    raise AssertionError(f"no {kind.__name__}")


def test_models():
    listed = client.models.list().data
    assert listed and all(model.object == "model" for model in listed)
    assert client.models.retrieve(served_model()).id == served_model()


def test_chat():
    reply = client.chat.completions.create(model=served_model(), messages=QUESTION, max_tokens=8, temperature=0)
    assert reply.object == "chat.completion"
    choice = reply.choices[0]
    assert choice.message.role == "assistant" and choice.message.content
    assert choice.finish_reason in ("stop", "length")
    assert reply.usage.total_tokens == reply.usage.prompt_tokens + reply.usage.completion_tokens
    assert 1 <= reply.usage.completion_tokens <= 8


def test_stream_says_the_same():
    options = dict(model=served_model(), messages=QUESTION, max_tokens=12, temperature=0)
    whole = client.chat.completions.create(**options)
    chunks = list(client.chat.completions.create(**options, stream=True, stream_options={"include_usage": True}))
    assert chunks[0].choices[0].delta.role == "assistant"
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == whole.choices[0].message.content
    assert chunks[-1].choices == [] and chunks[-1].usage == whole.usage
    reasons = [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices]
    assert reasons[-1] == whole.choices[0].finish_reason and not any(reasons[:-1])


def test_completion():
    reply = client.completions.create(model=served_model(), prompt="Once upon a time", max_tokens=6, temperature=0)
    assert reply.object == "text_completion" and reply.choices[0].text
    chunks = client.completions.create(
        model=served_model(), prompt="Once upon a time", max_tokens=6, temperature=0, stream=True
    )
    assert "".join(chunk.choices[0].text for chunk in chunks) == reply.choices[0].text


def test_completion_of_several_prompts():
    prompts = ["The sky is", "Two and two are", "The sky is"]
    reply = client.completions.create(model=served_model(), prompt=prompts, max_tokens=5, temperature=0, n=2)
    assert [choice.index for choice in reply.choices] == list(range(6))
    assert reply.choices[0].text == reply.choices[1].text == reply.choices[4].text


def test_echo():
    reply = client.completions.create(model=served_model(), prompt="The sky is", max_tokens=3, echo=True)
    assert reply.choices[0].text.startswith("The sky is")


def test_seed_and_n():
    options = dict(model=served_model(), messages=QUESTION, max_tokens=12, temperature=1.5, seed=1234)
    first = client.chat.completions.create(**options, n=3)
    again = client.chat.completions.create(**options, n=3)
    single = client.chat.completions.create(**options)
    texts = [choice.message.content for choice in first.choices]
    assert texts == [choice.message.content for choice in again.choices]
    assert single.choices[0].message.content == texts[0]


def test_n_streamed():
    chunks = client.chat.completions.create(
        model=served_model(), messages=QUESTION, max_tokens=6, n=3, temperature=0, stream=True
    )
    texts = {}
    for chunk in chunks:
        for choice in chunk.choices:
            texts[choice.index] = texts.get(choice.index, "") + (choice.delta.content or "")
    assert sorted(texts) == [0, 1, 2] and len(set(texts.values())) == 1


def test_stop():
    model = served_model()
    options = dict(model=model, messages=QUESTION, max_tokens=12, temperature=0)
    text = client.chat.completions.create(**options).choices[0].message.content
    stop = text[1:3]
    reply = client.chat.completions.create(**options, stop=[stop, "\u0000never"])
    assert reply.choices[0].message.content == text[: text.index(stop)]
    assert reply.choices[0].finish_reason == "stop"
    chunks = client.chat.completions.create(**options, stop=stop, stream=True)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == text[: text.index(stop)]


def test_chat_logprobs():
    reply = client.chat.completions.create(
        model=served_model(), messages=QUESTION, max_tokens=4, temperature=0, logprobs=True, top_logprobs=3
    )
    content = reply.choices[0].logprobs.content
    assert len(content) == reply.usage.completion_tokens
    assert b"".join(bytes(token.bytes) for token in content).decode() == reply.choices[0].message.content
    for token in content:
        assert token.logprob <= 0 and len(token.top_logprobs) == 3
        assert token.top_logprobs[0].logprob >= token.top_logprobs[1].logprob >= token.top_logprobs[2].logprob
        assert token.top_logprobs[0].token == token.token  # greedy


def test_completion_logprobs():
    reply = client.completions.create(model=served_model(), prompt="The sky is", max_tokens=4, temperature=0, logprobs=2)
    logprobs = reply.choices[0].logprobs
    assert len(logprobs.tokens) == len(logprobs.token_logprobs) == len(logprobs.text_offset)
    assert "".join(logprobs.tokens) == reply.choices[0].text


def test_token_ids():
    reply = client.chat.completions.create(
        model=served_model(), messages=QUESTION, max_tokens=5, temperature=0, extra_body={"return_token_ids": True}
    )
    ids = reply.choices[0].model_extra["token_ids"]
    assert len(ids) == reply.usage.completion_tokens
    chunks = client.chat.completions.create(
        model=served_model(),
        messages=QUESTION,
        max_tokens=5,
        temperature=0,
        stream=True,
        extra_body={"return_token_ids": True},
    )
    assert sum((chunk.choices[0].model_extra["token_ids"] for chunk in chunks), []) == ids


def test_system_and_parts():
    reply = client.chat.completions.create(
        model=served_model(),
        messages=[
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": [{"type": "text", "text": "Say hello."}]},
        ],
        max_tokens=5,
    )
    assert reply.choices[0].message.content is not None


def test_errors():
    model = served_model()
    chat = client.chat.completions.create
    expect_error(openai.NotFoundError, lambda: chat(model="no-such", messages=QUESTION), code="model_not_found")
    expect_error(openai.NotFoundError, lambda: client.models.retrieve("no-such"), code="model_not_found")
    bad = openai.BadRequestError
    expect_error(bad, lambda: chat(model=model, messages=[]), param="messages")
    expect_error(bad, lambda: chat(model=model, messages=QUESTION, temperature=9), param="temperature")
    expect_error(bad, lambda: chat(model=model, messages=QUESTION, n=0), param="n")
    expect_error(
        bad,
        lambda: chat(model=model, messages=QUESTION, response_format={"type": "json_object"}),
        param="response_format",
    )
    image = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://x/y.png"}}]}]
    expect_error(bad, lambda: chat(model=model, messages=image), param="messages[0].content")
    expect_error(bad, lambda: client.completions.create(model=model, prompt="x", suffix="y"), param="suffix")


def test_too_long():
    error = expect_error(
        openai.BadRequestError,
        lambda: client.completions.create(model=served_model(), prompt="word " * 200000, max_tokens=1),
        code="context_length_exceeded",
    )
    assert "maximum context length" in error.message


def test_wrong_key():
    if not KEY:
        skip("the server asks for no key")
    other = client.with_options(api_key="wrong")
    expect_error(openai.AuthenticationError, lambda: other.models.list(), code="invalid_api_key")


def test_many_at_once():
    model = served_model()

    def ask(index):
        reply = client.completions.create(model=model, prompt=f"Number {index % 4} is", max_tokens=8, temperature=0)
        return index % 4, reply.choices[0].text

    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(ask, range(32)))
    assert len(set(answers)) == len({index for index, _ in answers})


def test_leaving_a_stream_early():
    for _ in range(5):
        stream = client.chat.completions.create(model=served_model(), messages=QUESTION, stream=True)
        next(iter(stream))
        stream.close()
    assert client.chat.completions.create(model=served_model(), messages=QUESTION, max_tokens=2).choices


def test_toy_says():
    reply = client.chat.completions.create(
        model=toy_model(), messages=[{"role": "user", "content": "say one two three"}], stop="two"
    )
    assert reply.choices[0].message.content == "one "


def test_model_knows_paris():
    reply = client.chat.completions.create(model=trained_model(), messages=QUESTION, max_tokens=16, temperature=0)
    assert "Paris" in reply.choices[0].message.content


def test_model_ends_by_itself():
    reply = client.chat.completions.create(model=trained_model(), messages=QUESTION, max_tokens=200, temperature=0)
    assert reply.choices[0].finish_reason == "stop"


def test_model_seeds_differ():
    model = trained_model()
    texts = {
        client.chat.completions.create(
            model=model, messages=QUESTION, max_tokens=24, temperature=1.5, seed=seed
        ).choices[0].message.content
        for seed in range(4)
    }
    assert len(texts) > 1


def main():
    connect(os.environ.get("SWITCHYARD_URL", "http://127.0.0.1:8000"))
    names = sys.argv[1:] or [name for name in globals() if name.startswith("test_")]
    failed = 0
    for name in names:
        try:
            globals()[name]()
            print(f"ok      {name}")
        except Skip as reason:
            print(f"skipped {name}: {reason}")
        except Exception:
            failed += 1
            print(f"FAILED  {name}")
            traceback.print_exc()
    print(f"{len(names)} tests, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
