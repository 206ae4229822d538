"""The client libraries that people use find the same Ollama behind the gateway as without it."""

import asyncio
import hashlib
import json
import subprocess

import anthropic
import httpx
import ollama as ollama_client
import openai
import pytest

from endpoints import CHAT, GENERATE, MESSAGES, steady


@pytest.fixture(scope="module")
def addresses(ollama, ollama_gateway):
    """Where to ask: the box itself, and the gateway."""
    return ollama.url, ollama_gateway.url


def native(url):
    return ollama_client.Client(host=url)


def openai_client(url):
    return openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)


def anthropic_client(url):
    return anthropic.Anthropic(base_url=url, api_key="none", max_retries=0)


def plain_values(result):
    """What a client library returned, without what differs from answer to answer."""
    if isinstance(result, (list, tuple)):
        return [plain_values(each) for each in result]
    if isinstance(result, dict):
        return {key: plain_values(value) for key, value in result.items()}
    if hasattr(result, "model_dump_json"):
        text = result.model_dump_json(exclude_none=True).encode()
        return json.loads(steady(text).decode())
    return result


NATIVE = {
    "generate": lambda client: client.generate(**GENERATE),
    "generate, streamed": lambda client: list(client.generate(**GENERATE, stream=True)),
    "generate with options": lambda client: client.generate(
        **GENERATE, options={"seed": 1, "temperature": 0, "num_predict": 4}, keep_alive="10m"
    ),
    "chat": lambda client: client.chat(**CHAT),
    "chat, streamed": lambda client: list(client.chat(**CHAT, stream=True)),
    "chat in another script": lambda client: client.chat(
        model="mistral", messages=[{"role": "user", "content": "空はなぜ青い? \u2028 <&> \U0001f600"}]
    ),
    "embed one": lambda client: client.embed(model="nomic-embed-text", input="one"),
    "embed many": lambda client: client.embed(model="nomic-embed-text", input=["one", "two", "three"]),
    "embeddings": lambda client: client.embeddings(model="nomic-embed-text", prompt="one"),
    "list": lambda client: client.list(),
    "show": lambda client: client.show("llama3.2"),
    "pull": lambda client: client.pull("llama3.2"),
    "pull with progress": lambda client: list(client.pull("llama3.2", stream=True)),
}


@pytest.mark.parametrize("call", NATIVE)
def test_the_ollama_client_gets_the_same_through_the_gateway(addresses, call):
    direct, through = (plain_values(NATIVE[call](native(url))) for url in addresses)
    assert through == direct
    assert through


def test_a_stream_comes_in_parts_that_make_up_the_whole(addresses):
    client = native(addresses[1])
    parts = list(client.chat(**CHAT, stream=True))
    assert len(parts) > 2
    assert [part.done for part in parts] == [False] * (len(parts) - 1) + [True]
    assert "".join(part.message.content for part in parts) == client.chat(**CHAT).message.content


def test_loaded_models_are_listed(addresses):
    native(addresses[1]).generate(**GENERATE)
    names = [[model.model for model in native(url).ps().models] for url in addresses]
    assert names[0] == names[1]
    assert "llama3.2:latest" in names[1]


def test_a_pull_tells_its_progress(addresses):
    progress = list(native(addresses[1]).pull("llama3.2", stream=True))
    assert progress[0].status == "pulling manifest"
    assert progress[-1].status == "success"
    layers = [each for each in progress if each.total]
    assert layers and all(each.completed <= each.total for each in layers if each.completed is not None)


def test_a_model_is_copied_and_deleted(addresses):
    direct, through = map(native, addresses)

    def names(client):
        return {model.model for model in client.list().models}

    through.copy("llama3.2", "copied")
    assert "copied:latest" in names(direct)
    assert "copied:latest" in names(through)
    through.delete("copied")
    assert "copied:latest" not in names(direct)


def test_a_blob_is_uploaded(addresses, tmp_path):
    file = tmp_path / "layer"
    file.write_bytes(b"a layer of a model" * 10_000)
    digest = native(addresses[1]).create_blob(file)
    assert digest == "sha256:" + hashlib.sha256(file.read_bytes()).hexdigest()
    assert httpx.head(f"{addresses[0]}/api/blobs/{digest}").status_code == 200


NATIVE_ERRORS = {
    "generate": lambda client: client.generate(model="nope", prompt="x"),
    "generate, streamed": lambda client: list(client.generate(model="nope", prompt="x", stream=True)),
    "chat": lambda client: client.chat(model="nope", messages=CHAT["messages"]),
    "chat, streamed": lambda client: list(client.chat(model="nope", messages=CHAT["messages"], stream=True)),
    "embed": lambda client: client.embed(model="nope", input="x"),
    "show": lambda client: client.show("nope"),
    "delete": lambda client: client.delete("nope"),
    "copy": lambda client: client.copy("nope", "other"),
}


@pytest.mark.parametrize("call", NATIVE_ERRORS)
def test_the_ollama_client_raises_the_same_error_through_the_gateway(addresses, call):
    errors = []
    for url in addresses:
        with pytest.raises(ollama_client.ResponseError) as raised:
            NATIVE_ERRORS[call](native(url))
        errors.append((raised.value.status_code, raised.value.error))
    assert errors[0] == errors[1]
    assert errors[1][0] == 404


OPENAI = {
    "chat": lambda client: client.chat.completions.create(**CHAT),
    "chat, streamed": lambda client: list(client.chat.completions.create(**CHAT, stream=True)),
    "chat, streamed, with usage": lambda client: list(
        client.chat.completions.create(**CHAT, stream=True, stream_options={"include_usage": True})
    ),
    "completion": lambda client: client.completions.create(**GENERATE),
    "completion, streamed": lambda client: list(client.completions.create(**GENERATE, stream=True)),
    "embedding": lambda client: client.embeddings.create(model="nomic-embed-text", input="one"),
    "embeddings": lambda client: client.embeddings.create(
        model="nomic-embed-text", input=["one", "two"], encoding_format="float"
    ),
    "models": lambda client: client.models.list().data,
    "model": lambda client: client.models.retrieve("llama3.2"),
    "response": lambda client: client.responses.create(model="llama3.2", input="Why is the sky blue?"),
    "response, streamed": lambda client: list(
        client.responses.create(model="llama3.2", input="Why is the sky blue?", stream=True)
    ),
}


@pytest.mark.parametrize("call", OPENAI)
def test_the_openai_client_gets_the_same_through_the_gateway(addresses, call):
    direct, through = (plain_values(OPENAI[call](openai_client(url))) for url in addresses)
    assert through == direct
    assert through


OPENAI_ERRORS = {
    "chat": lambda client: client.chat.completions.create(**CHAT | {"model": "nope"}),
    "chat, streamed": lambda client: list(client.chat.completions.create(**CHAT | {"model": "nope"}, stream=True)),
    "completion": lambda client: client.completions.create(model="nope", prompt="x"),
    "embedding": lambda client: client.embeddings.create(model="nope", input="x"),
    "model": lambda client: client.models.retrieve("nope"),
}


@pytest.mark.parametrize("call", OPENAI_ERRORS)
def test_the_openai_client_raises_the_same_error_through_the_gateway(addresses, call):
    errors = []
    for url in addresses:
        with pytest.raises(openai.NotFoundError) as raised:
            OPENAI_ERRORS[call](openai_client(url))
        errors.append((raised.value.message, raised.value.body))
    assert errors[0] == errors[1]


def test_the_anthropic_client_gets_the_same_through_the_gateway(addresses):
    whole = [plain_values(anthropic_client(url).messages.create(**MESSAGES)) for url in addresses]
    assert whole[0] == whole[1] and whole[1]["content"][0]["text"]
    streamed = [plain_values(list(anthropic_client(url).messages.create(**MESSAGES, stream=True))) for url in addresses]
    assert streamed[0] == streamed[1] and len(streamed[1]) > 3


def test_the_anthropic_client_raises_the_same_error_through_the_gateway(addresses):
    errors = []
    for url in addresses:
        with pytest.raises(anthropic.NotFoundError) as raised:
            anthropic_client(url).messages.create(**MESSAGES | {"model": "nope"})
        errors.append(raised.value.body["error"])
    assert errors[0] == errors[1]


def test_the_body_of_an_error_is_the_same_to_the_byte(addresses):
    asked = [
        ("/api/chat", CHAT | {"model": "nope"}),
        ("/api/generate", {"model": "nope", "prompt": "x"}),
        ("/api/chat", {"messages": "of the wrong type"}),
        ("/v1/chat/completions", CHAT | {"model": "nope"}),
        ("/v1/messages", MESSAGES | {"model": "nope"}),
        ("/no/such/path", {}),
    ]
    for path, body in asked:
        direct, through = (httpx.post(url + path, json=body) for url in addresses)
        assert through.status_code == direct.status_code >= 400
        assert through.headers["Content-Type"] == direct.headers["Content-Type"]
        assert steady(through.content) == steady(direct.content)


def test_many_asynchronous_calls_share_the_gateway(ollama, ollama_gateway):
    async def ask_all():
        client = ollama_client.AsyncClient(host=ollama_gateway.url)
        openai_async = openai.AsyncOpenAI(base_url=ollama_gateway.url + "/v1", api_key="none", max_retries=0)
        native_calls = [client.generate(model="llama3.2", prompt=f"question {n}") for n in range(50)]
        openai_calls = [openai_async.completions.create(model="llama3.2", prompt=f"question {n}") for n in range(50)]
        return await asyncio.gather(*native_calls, *openai_calls)

    answers = asyncio.run(ask_all())
    direct = native(ollama.url)
    for number in (0, 17, 49):
        expected = direct.generate(model="llama3.2", prompt=f"question {number}").response
        assert answers[number].response == expected
        assert answers[50 + number].choices[0].text


def test_a_client_behind_two_gateways_notices_nothing(ollama, ollama_gateway, start_gateway):
    second = start_gateway(ollama_gateway.address)
    client = native(second.url)
    direct = native(ollama.url)
    assert plain_values(list(client.chat(**CHAT, stream=True))) == plain_values(list(direct.chat(**CHAT, stream=True)))


def test_a_curl_command_line_works(ollama_gateway):
    words = ["curl", "-sS", "--max-time", "10", f"{ollama_gateway.url}/api/generate", "-d", json.dumps(GENERATE)]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["done"] is True
