"""What the client libraries return from the cache is what they returned the first time: all of it, in either form."""

import asyncio

import httpx
import ollama as ollama_client
import openai
import pytest

from endpoints import CHAT, GENERATE
from programs import SimulatedOllama
from test_clients import native, openai_client

MODELS = "llama3.2,mistral,nomic-embed-text,qwen3,codellama,llava"
TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
SCHEMA = {"type": "object", "properties": {"colour": {"type": "string"}, "count": {"type": "integer"}}}


@pytest.fixture(scope="module")
def box_of_all():
    program = SimulatedOllama(models=MODELS, tokens=12)
    yield program
    assert program.stop() == 0


@pytest.fixture
def ollama(box_of_all):
    box_of_all.reset()
    return box_of_all


@pytest.fixture
def gateway(ollama, start_gateway):
    """A gateway that keeps answers, even those with tools; it has none as yet."""
    return start_gateway(ollama.address, cache_ttl="1h", cache_tools=True)


def values(result):
    """All that a client library returned."""
    if isinstance(result, (list, tuple)):
        return [values(each) for each in result]
    # Without warnings: a vector in base64 is not what openai's own types say.
    return result.model_dump(warnings=False) if hasattr(result, "model_dump") else result


# MARK: ollama

ASKED = "Why? \u2028 <&> 空 \U0001f600"
NATIVE = {
    "generate": ("generate", GENERATE),
    "generate with options": ("generate", GENERATE | {"options": {"seed": 1, "temperature": 0, "num_predict": 4}}),
    "generate raw": ("generate", GENERATE | {"raw": True}),
    "generate with system": ("generate", GENERATE | {"system": "Be brief.", "keep_alive": "10m"}),
    "generate, thinking": ("generate", GENERATE | {"model": "qwen3", "think": True}),
    "generate, not thinking": ("generate", GENERATE | {"model": "qwen3", "think": False}),
    "generate with log-probabilities": ("generate", GENERATE | {"logprobs": True, "top_logprobs": 3}),
    "generate, thinking with log-probabilities": ("generate", GENERATE | {"model": "qwen3", "logprobs": True}),
    "generate JSON": ("generate", GENERATE | {"format": SCHEMA}),
    "generate with suffix": ("generate", {"model": "codellama", "prompt": "def f():", "suffix": "return 1"}),
    "generate from an image": ("generate", {"model": "llava", "prompt": "What is it?", "images": [b"not really"]}),
    "generate from odd letters": ("generate", {"model": "mistral", "prompt": ASKED}),
    "chat": ("chat", CHAT),
    "chat with options": ("chat", CHAT | {"options": {"seed": 1, "stop": ["zzz"], "num_predict": 5}}),
    "chat, thinking": ("chat", CHAT | {"model": "qwen3"}),
    "chat with log-probabilities": ("chat", CHAT | {"logprobs": True, "top_logprobs": 2}),
    "chat JSON": ("chat", CHAT | {"format": "json"}),
    "chat with a tool": (
        "chat",
        {"model": "llama3.2", "messages": [{"role": "user", "content": "get_weather of Oslo"}], "tools": [TOOL]},
    ),
    "chat with a tool not used": ("chat", CHAT | {"tools": [TOOL]}),
    "chat from odd letters": ("chat", {"model": "mistral", "messages": [{"role": "user", "content": ASKED}]}),
    "chat of several": (
        "chat",
        {
            "model": "llama3.2:latest",
            "messages": [
                {"role": "system", "content": "Be brief."},
                {"role": "user", "content": "Why?"},
                {"role": "assistant", "content": "Because."},
                {"role": "user", "content": "Really?"},
            ],
        },
    ),
}
METRICS = [
    "model", "done", "done_reason", "total_duration", "load_duration", "prompt_eval_count", "prompt_eval_duration",
    "eval_count", "eval_duration",
]  # fmt: skip


def native_result(client, call, stream):
    """What the client returns, all of it."""
    method, arguments = call
    result = getattr(client, method)(**arguments, stream=stream)
    return values(list(result)) if stream else values(result)


def native_sum(result):
    """What a streamed or a whole result says in the end: for both forms the same."""
    parts = result if isinstance(result, list) else [result]
    said = [part.get("message") or part for part in parts]
    logprobs = [entry for part in parts for entry in part.get("logprobs") or []]
    return {
        "text": "".join(each.get("content") or each.get("response") or "" for each in said),
        "thinking": "".join(each.get("thinking") or "" for each in said),
        "calls": [call for each in said for call in each.get("tool_calls") or []],
        "logprobs": logprobs,
        "context": parts[-1].get("context"),
    } | {name: parts[-1][name] for name in METRICS}


ORDERS = [(False, False), (True, True), (True, False), (False, True)]


def order_name(value):
    return {True: "stream", False: "whole"}.get(value)


@pytest.mark.parametrize(("first", "then"), ORDERS, ids=order_name)
@pytest.mark.parametrize("call", NATIVE)
def test_the_ollama_client_gets_the_same_again(ollama, gateway, call, first, then):
    client = native(gateway.url)
    miss = native_result(client, NATIVE[call], first)
    hit = native_result(client, NATIVE[call], then)
    again = native_result(client, NATIVE[call], then)
    assert ollama.calls() == 1
    if first == then:
        assert hit == miss
    assert again == hit
    assert native_sum(hit) == native_sum(miss)
    assert native_sum(hit)["done"] is True and native_sum(hit)["eval_count"] > 0
    if "thinking" in call and "not thinking" not in call or "chat, thinking" == call:
        assert native_sum(hit)["thinking"]
    if "log-probabilities" in call:
        assert len(native_sum(hit)["logprobs"]) == native_sum(hit)["eval_count"]
    if call == "chat with a tool":
        assert native_sum(hit)["calls"][0]["function"]["name"] == "get_weather"
    else:
        assert native_sum(hit)["text"]
    if then:
        assert len(hit) >= 2, "a stream comes in parts"


NATIVE_VECTORS = {
    "embed one": lambda client: client.embed(model="nomic-embed-text", input="one"),
    "embed many": lambda client: client.embed(model="nomic-embed-text", input=["one", "two", "three"]),
    "embed short": lambda client: client.embed(model="nomic-embed-text", input="one", dimensions=16),
    "embeddings": lambda client: client.embeddings(model="nomic-embed-text", prompt="one"),
}


@pytest.mark.parametrize("call", NATIVE_VECTORS)
def test_the_ollama_client_gets_the_same_vectors_again(ollama, gateway, call):
    client = native(gateway.url)
    miss, hit, direct = (values(NATIVE_VECTORS[call](each)) for each in (client, client, native(ollama.url)))
    assert hit == miss
    assert ollama.calls() == 2  # With the one asked directly.
    for name in ("embeddings", "embedding"):
        assert hit.get(name) == direct.get(name)


def test_the_ollama_client_sees_the_model_as_it_spelled_it(ollama, gateway):
    client = native(gateway.url)
    for model in ("llama3.2", "llama3.2:latest", "llama3.2"):
        for stream in (True, False):
            parts = native_result(client, ("chat", CHAT | {"model": model}), stream)
            assert {part["model"] for part in (parts if stream else [parts])} == {model}
    assert ollama.calls() == 1


def test_the_asynchronous_ollama_client_gets_one_answer_for_all(ollama, gateway):
    ollama.control(first_token_ms=200)

    async def ask_all():
        client = ollama_client.AsyncClient(host=gateway.url)

        async def streamed():
            return [values(part) async for part in await client.chat(**CHAT, stream=True)]

        async def whole():
            return values(await client.chat(**CHAT))

        return await asyncio.gather(*[streamed() for _ in range(25)], *[whole() for _ in range(25)])

    results = asyncio.run(ask_all())
    assert ollama.calls() == 1
    assert all(result == results[0] for result in results[:25])
    assert all(result == results[25] for result in results[25:])
    assert native_sum(results[0]) == native_sum(results[25])


# MARK: openai

USAGE = {"stream_options": {"include_usage": True}}
CHATS = {
    "chat": CHAT,
    "chat with parameters": CHAT | {"temperature": 0, "seed": 7, "max_tokens": 5, "stop": ["zzz"]},
    "chat, thinking": CHAT | {"model": "qwen3"},
    "chat with log-probabilities": CHAT | {"logprobs": True, "top_logprobs": 2},
    "chat JSON": CHAT
    | {"response_format": {"type": "json_schema", "json_schema": {"name": "answer", "schema": SCHEMA}}},
    "chat with a tool": {
        "model": "llama3.2",
        "messages": [{"role": "user", "content": "get_weather of Oslo"}],
        "tools": [TOOL],
    },
    "chat from odd letters": {"model": "mistral", "messages": [{"role": "user", "content": ASKED}]},
    "chat in parts": {
        "model": "llama3.2",
        "messages": [{"role": "user", "content": [{"type": "text", "text": "Why?"}, {"type": "text", "text": "Oh?"}]}],
    },
}
COMPLETIONS = {
    "completion": GENERATE,
    "completion with parameters": GENERATE | {"temperature": 0.3, "top_p": 0.9, "max_tokens": 4},
    "completion from odd letters": {"model": "mistral", "prompt": ASKED},
}
FORMS = {
    "whole": lambda create, arguments: values(create(**arguments)),
    "stream": lambda create, arguments: values(list(create(**arguments, stream=True))),
    "stream with usage": lambda create, arguments: values(list(create(**arguments, stream=True, **USAGE))),
}


def openai_sum(result):
    """What a streamed or a whole result says in the end: for both forms the same, but for what a stream leaves out."""
    parts = result if isinstance(result, list) else [result]
    choices = [choice for part in parts for choice in part["choices"]]
    said = [choice.get("message") or choice.get("delta") or choice for choice in choices]
    calls = [call for each in said for call in each.get("tool_calls") or []]
    usages = [part["usage"] for part in parts if part.get("usage") and part["usage"]["total_tokens"]]
    logprobs = [choice.get("logprobs") or {} for choice in choices]
    roles = [each["role"] for each in said if each.get("role")]
    return {
        "id": {part["id"] for part in parts},
        "created": {part["created"] for part in parts},
        "model": {part["model"] for part in parts},
        "fingerprint": {part["system_fingerprint"] for part in parts},
        "role": roles[:1],
        "text": "".join(each.get("content") or each.get("text") or "" for each in said),
        "thinking": "".join(each.get("reasoning") or "" for each in said),
        "calls": [(call["id"], call["function"]["name"], call["function"]["arguments"]) for call in calls],
        "logprobs": [entry for each in logprobs for entry in each.get("content") or []],
        "reason": [choice["finish_reason"] for choice in choices if choice.get("finish_reason")],
        "usage": usages[0] if usages else None,
    }


def check_openai(ollama, create, arguments, first, then):
    """Asks in one form, then twice in the other; returns the sum."""
    miss, hit, again = (FORMS[form](create, arguments) for form in (first, then, then))
    assert ollama.calls() == 1
    if first == then:
        assert hit == miss
    assert again == hit
    one, other = openai_sum(miss), openai_sum(hit)
    for form, each in ((first, one), (then, other)):
        assert (each["usage"] is None) == (form == "stream"), "usage, but where it was not asked for"
    if "stream" in (first, then):
        one.pop("usage"), other.pop("usage")
    assert one == other
    assert len(one["reason"]) == 1
    if then != "whole":
        assert len(hit) >= 2, "a stream comes in parts"
    return one


@pytest.mark.parametrize("then", FORMS)
@pytest.mark.parametrize("first", FORMS)
@pytest.mark.parametrize("call", CHATS)
def test_the_openai_client_gets_the_same_chat_again(ollama, gateway, call, first, then):
    result = check_openai(ollama, openai_client(gateway.url).chat.completions.create, CHATS[call], first, then)
    assert result["role"] == ["assistant"]
    assert bool(result["calls"]) == (call == "chat with a tool")
    assert bool(result["thinking"]) == (call == "chat, thinking")
    assert bool(result["logprobs"]) == (call == "chat with log-probabilities")
    assert bool(result["text"]) != bool(result["calls"])


@pytest.mark.parametrize("then", FORMS)
@pytest.mark.parametrize("first", FORMS)
@pytest.mark.parametrize("call", COMPLETIONS)
def test_the_openai_client_gets_the_same_completion_again(ollama, gateway, call, first, then):
    assert check_openai(ollama, openai_client(gateway.url).completions.create, COMPLETIONS[call], first, then)["text"]


@pytest.mark.parametrize("fields", [{}, {"encoding_format": "float"}, {"encoding_format": "base64"}], ids=str)
@pytest.mark.parametrize("asked", ["one", ["one", "two", "three"]], ids=["one", "many"])
def test_the_openai_client_gets_the_same_vectors_again(ollama, gateway, asked, fields):
    arguments = {"model": "nomic-embed-text", "input": asked} | fields
    client = openai_client(gateway.url)
    miss, hit = (values(client.embeddings.create(**arguments)) for _ in range(2))
    assert ollama.calls() == 1
    assert hit == miss
    assert hit == values(openai_client(ollama.url).embeddings.create(**arguments))


def test_the_openai_client_can_read_where_an_answer_comes_from(gateway):
    client = openai_client(gateway.url)
    words = [client.chat.completions.with_raw_response.create(**CHAT).headers["X-Cache"] for _ in range(2)]
    assert words == ["MISS", "HIT"]


def test_the_asynchronous_openai_client_gets_one_answer_for_all(ollama, gateway):
    ollama.control(first_token_ms=200)

    async def ask_all():
        client = openai.AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key="none", max_retries=0)

        async def streamed(**fields):
            return values([part async for part in await client.chat.completions.create(**CHAT, stream=True, **fields)])

        async def whole():
            return values(await client.chat.completions.create(**CHAT))

        asked = [each for _ in range(15) for each in (streamed(), streamed(**USAGE), whole())]
        return await asyncio.gather(*asked)

    results = asyncio.run(ask_all())
    assert ollama.calls() == 1
    for form in range(3):
        assert all(result == results[form] for result in results[form::3])
    sums = [openai_sum(result) for result in results[:3]]
    assert sums[0].pop("usage") is None
    assert sums[1].pop("usage") == sums[2].pop("usage")
    assert sums[0] == sums[1] == sums[2]


def test_a_client_that_reads_lines_gets_the_same_lines_again(gateway):
    """httpx ends lines where Python does; what is replayed ends them nowhere else than the box did."""
    body = {"model": "mistral", "prompt": ASKED}
    for path in ("/api/generate", "/v1/completions"):
        lines = []
        for _ in range(2):
            with httpx.stream("POST", gateway.url + path, json=body | {"stream": True}) as response:
                lines.append(list(response.iter_lines()))
        assert lines[0] == lines[1] and len(lines[0]) > 10
