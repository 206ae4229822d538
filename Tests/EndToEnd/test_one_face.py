"""Boxes that differ look like one to those who list, show, pull, copy, create and delete models."""

import hashlib
import json
import signal
import time

import httpx
import ollama as ollama_client
import openai
import pytest

from boxes import entry, unused_address
from caching import hit, missed, question
from dialects import check_error
from endpoints import steady
from fleet import PATH, answer_as, asked, fresh, refuse_with, shares
from wire import ask, wait_until

SOON = 4.0
HELD = ["llama3.2,mistral,qwen3", "llama3.2,nomic-embed-text", "mistral,codellama:7b,me/mine"]
NAMES = {
    "llama3.2:latest", "mistral:latest", "qwen3:latest", "nomic-embed-text:latest", "codellama:7b", "me/mine:latest",
}  # fmt: skip


@pytest.fixture
def boxes(start_ollama):
    """Three boxes that have some models in common."""
    return [start_ollama(models=models, tokens=4) for models in HELD]


@pytest.fixture
def gateway(boxes, start_gateway):
    return start_gateway(*(box.address for box in boxes))


@pytest.fixture
def client(gateway):
    return ollama_client.Client(host=gateway.url)


def tags(program):
    """The models that a box or a gateway lists, by name."""
    answer = ask(program.address, "GET", "/api/tags")
    assert (answer.status, answer.header("Content-Type")) == (200, "application/json; charset=utf-8")
    models = answer.json["models"]
    assert len({model["name"] for model in models}) == len(models), "a model twice"
    return {model["name"]: model for model in models}


def running(program):
    return {model["name"]: model for model in ask(program.address, "GET", "/api/ps").json["models"]}


def requests(box, route):
    return box.counts()["requests"].get(route, 0)


# MARK: Lists


def test_the_list_is_that_of_all_boxes_newest_first(boxes, gateway, client):
    merged = tags(gateway)
    assert set(merged) == NAMES
    dates = [model["modified_at"] for model in merged.values()]
    assert dates == sorted(dates, reverse=True)
    for box in boxes:
        for name, model in tags(box).items():
            assert merged[name] == model
    assert [model.model for model in client.list().models] == list(merged)


def test_head_of_the_list_has_its_length(gateway):
    whole, head = (ask(gateway.address, method, "/api/tags") for method in ("GET", "HEAD"))
    assert (head.status, head.header("Content-Type")) == (200, whole.header("Content-Type"))
    assert head.header("Content-Length") in (None, str(len(whole.body)))


def test_the_list_costs_no_call_to_a_box(boxes, gateway):
    before = [requests(box, "GET /api/tags") for box in boxes]
    for _ in range(50):
        tags(gateway)
        ask(gateway.address, "GET", "/v1/models")
    assert [requests(box, "GET /api/tags") for box in boxes] == before


def test_a_model_with_several_spellings_is_listed_once(start_box, start_gateway):
    lists = [["llama3"], ["Llama3:latest", "LLAMA3:8B"], ["llama3:8b"]]
    boxes = [start_box(models=models) for models in lists]
    gateway = start_gateway(*(box.address for box in boxes))
    assert {name.lower() for name in tags(gateway)} == {"llama3:latest", "llama3:8b"}
    assert len(tags(gateway)) == 2


def test_a_box_that_hangs_does_not_hold_up_the_list(boxes, gateway):
    boxes[0].signal(signal.SIGSTOP)
    try:
        for target in ("/api/tags", "/v1/models", "/api/version", "/api/ps"):
            begin = time.monotonic()
            assert ask(gateway.address, "GET", target).status == 200
            assert time.monotonic() - begin < 1, target
    finally:
        boxes[0].signal(signal.SIGCONT)


def test_a_model_that_only_a_dead_box_has_is_not_said_to_be_unknown(boxes, start_gateway):
    gateway = start_gateway(*(box.address for box in boxes), health_interval="1s")
    boxes[0].stop()
    gateway.await_state(boxes[0], "unhealthy", limit=SOON)
    assert set(tags(gateway)) >= NAMES - {"qwen3:latest"}
    check_error(ask(gateway.address, "POST", "/api/show", body={"model": "qwen3"}), "/api/show", 503)
    assert ask(gateway.address, "POST", "/api/show", body={"model": "mistral"}).status == 200


def test_what_is_loaded_is_that_of_all_boxes(boxes, gateway, client):
    assert client.ps().models == []
    for model in ("qwen3", "codellama:7b"):
        client.generate(model=model, prompt="x")
    client.embed(model="nomic-embed-text", input="x")
    names = {"qwen3:latest", "codellama:7b", "nomic-embed-text:latest"}
    wait_until(lambda: {model.model for model in client.ps().models} == names, "three loaded models", limit=SOON)
    for name, model in running(gateway).items():
        assert [running(box)[name]["digest"] for box in boxes if name in running(box)] == [model["digest"]]


def test_a_model_that_is_loaded_twice_is_listed_once(boxes, gateway, client):
    for box, alive in zip(boxes[:2], ("5m", "10m"), strict=True):
        ollama_client.Client(host=box.url).generate(model="llama3.2", prompt="x", keep_alive=alive)
    client.generate(model="qwen3", prompt="x")
    wait_until(lambda: len(running(gateway)) == 2, "two loaded models", limit=7)
    models = ask(gateway.address, "GET", "/api/ps").json["models"]
    assert sorted(model["name"] for model in models) == ["llama3.2:latest", "qwen3:latest"]
    # The one that lives longest, once the gateway has heard of it.
    until = max(running(box)["llama3.2:latest"]["expires_at"] for box in boxes[:2])
    wait_until(lambda: running(gateway)["llama3.2:latest"]["expires_at"][:15] == until[:15], "the longer life", limit=7)


def test_a_model_is_shown_by_a_box_that_has_it(boxes, gateway, client):
    for name in NAMES:
        holder = next(box for box in boxes if name in tags(box))
        for body in ({"model": name}, {"name": name}, {"model": name.removesuffix(":latest"), "verbose": True}):
            direct, through = (ask(each.address, "POST", "/api/show", body=body) for each in (holder, gateway))
            assert (through.status, steady(through.body)) == (200, steady(direct.body))
    with pytest.raises(ollama_client.ResponseError) as raised:
        client.show("nope")
    assert (raised.value.status_code, raised.value.error) == (404, "model 'nope:latest' not found")


def test_the_openai_client_lists_and_retrieves_the_models_of_all(boxes, gateway):
    client = openai.OpenAI(base_url=f"{gateway.url}/v1", api_key="none", max_retries=0)
    models = client.models.list().data
    assert [model.id for model in models] == list(tags(gateway))
    assert all(model.object == "model" and model.created > 1_700_000_000 for model in models)
    assert {model.id: model.owned_by for model in models}["me/mine:latest"] == "me"
    for box in boxes:
        for model in openai.OpenAI(base_url=f"{box.url}/v1", api_key="none").models.list().data:
            assert model in models
    for name in ("qwen3", "qwen3:latest", "codellama:7b", "nomic-embed-text"):
        holder = next(box for box in boxes if name.removesuffix(":latest") in str(tags(box)))
        direct, through = (ask(each.address, "GET", f"/v1/models/{name}") for each in (holder, gateway))
        assert (through.status, through.body) == (200, direct.body)
        assert client.models.retrieve(name).id == name
    direct, through = (ask(each.address, "GET", "/v1/models/nope") for each in (boxes[0], gateway))
    assert (through.status, through.body) == (404, direct.body)


def test_a_fleet_without_models_lists_none(start_box, start_gateway):
    gateway = start_gateway(start_box(models=[]).address)
    assert ask(gateway.address, "GET", "/api/tags").json == {"models": []}
    assert ask(gateway.address, "GET", "/v1/models").json == {"object": "list", "data": []}
    assert openai.OpenAI(base_url=f"{gateway.url}/v1", api_key="none").models.list().data == []


def test_the_version_is_the_lowest(start_box, start_gateway):
    versions = ["0.33.0", "0.9.10", "0.12.1-rc2"]
    boxes = [start_box(version=version) for version in versions]
    gateway = start_gateway(*(box.address for box in boxes))
    assert ask(gateway.address, "GET", "/api/version").json == {"version": "0.9.10"}
    assert [backend["version"] for backend in gateway.status()["backends"]] == versions
    assert ask(gateway.address, "HEAD", "/api/version").status == 200


def test_what_is_embedded_is_embedded_where_the_model_is(boxes, gateway, client):
    vectors = client.embed(model="nomic-embed-text", input=["one", "two"]).embeddings
    direct = ollama_client.Client(host=boxes[1].url).embed(model="nomic-embed-text", input=["one", "two"]).embeddings
    assert vectors == direct
    assert [requests(box, "POST /api/embed") for box in boxes] == [0, 2, 0]


# MARK: One name, two digests


@pytest.fixture
def torn(start_ollama, start_gateway):
    """Three boxes of which one has another mistral than the others, and a gateway that keeps answers."""
    boxes = [start_ollama(models=models, tokens=8) for models in ("mistral", "mistral@old,qwen3", "mistral")]
    return boxes, start_gateway(*(box.address for box in boxes), cache_ttl="1m", health_interval="1s")


def digests(box):
    return {name: model["digest"] for name, model in tags(box).items()}


def test_boxes_with_another_model_of_the_name_are_not_asked(torn):
    boxes, gateway = torn
    for _ in range(12):
        assert ask(gateway.address, "POST", PATH, body=fresh(model="mistral")).status == 200
    assert [box.calls() for box in boxes] == [6, 0, 6]
    assert tags(gateway)["mistral:latest"] == tags(boxes[0])["mistral:latest"]
    (conflict,) = gateway.status()["conflicts"]
    assert conflict["model"] == "mistral:latest"
    names = [gateway.backend(box)["name"] for box in boxes]
    told = {each["digest"]: (each["backends"], each["used"]) for each in conflict["digests"]}
    assert told == {
        digests(boxes[0])["mistral:latest"]: ([names[0], names[2]], True),
        digests(boxes[1])["mistral:latest"]: ([names[1]], False),
    }
    assert [line for line in gateway.log.splitlines() if "mistral" in line and "/api/" not in line]


def test_a_conflict_is_over_when_all_have_pulled_the_same(torn):
    boxes, gateway = torn
    client = ollama_client.Client(host=gateway.url)
    assert client.pull("mistral").status == "success"
    assert len({digests(box)["mistral:latest"] for box in boxes}) == 1
    wait_until(lambda: gateway.status()["conflicts"] == [], "the end of the conflict", limit=SOON)
    for _ in range(9):
        assert ask(gateway.address, "POST", PATH, body=fresh(model="mistral")).status == 200
    assert [box.calls() for box in boxes] == [3, 3, 3]


# MARK: What changes the boxes


def check_progress(lines):
    """Fails unless these are the progress of one pull, as a client draws its bars from it."""
    assert lines[0]["status"] == "pulling manifest"
    bars = {}
    for line in lines:
        if "total" in line:
            completed, total = line.get("completed", 0), line["total"]
            assert completed <= total, line
            before = bars.get(line["digest"], (0, total))
            assert completed >= before[0], "a bar goes back"
            bars[line["digest"]] = (completed, total)
    return bars


@pytest.mark.parametrize("stream", [True, False])
def test_a_pull_reaches_every_box(boxes, gateway, client, stream):
    if stream:
        lines = [json.loads(part.model_dump_json(exclude_none=True)) for part in client.pull("gemma", stream=True)]
        assert all(completed == total for completed, total in check_progress(lines).values())
        assert [line["status"] for line in lines].count("success") == 1
        assert lines[-1] == {"status": "success"}
    else:
        assert client.pull("gemma").status == "success"
    assert [requests(box, "POST /api/pull") for box in boxes] == [1, 1, 1]
    assert all("gemma:latest" in tags(box) for box in boxes)
    # It is there for use and in the list at once.
    assert "gemma:latest" in tags(gateway)
    for _ in range(6):
        client.generate(model="gemma", prompt=f"{time.monotonic()}")
    assert [requests(box, "POST /api/generate") for box in boxes] == [2, 2, 2]


def test_a_pull_that_one_box_fails_tells_which(boxes, gateway, client):
    boxes[1].control(fault={"kind": "error_line", "path": "/api/pull", "after": 2, "message": "no space left"})
    with pytest.raises(ollama_client.ResponseError) as raised:
        check_progress([part.model_dump(exclude_none=True) for part in client.pull("gemma", stream=True)])
    names = [gateway.backend(box)["name"] for box in boxes]
    assert f"{names[1]}: no space left" in raised.value.error
    assert "failed on " + names[1] in raised.value.error
    assert ["gemma:latest" in tags(box) for box in boxes] == [True, False, True]
    with pytest.raises(ollama_client.ResponseError) as raised:
        client.pull("gemma")
    assert names[1] in raised.value.error
    wait_until(lambda: "gemma:latest" in tags(gateway), "the model", limit=SOON)


def test_a_pull_that_a_box_breaks_off_tells_which(boxes, gateway, client):
    boxes[1].control(fault={"kind": "cut", "path": "/api/pull", "after": 2})
    with pytest.raises(ollama_client.ResponseError) as raised:
        list(client.pull("gemma", stream=True))
    assert gateway.backend(boxes[1])["name"] in raised.value.error
    assert ["gemma:latest" in tags(box) for box in boxes] == [True, False, True]


def test_a_pull_of_what_no_registry_knows_fails_in_the_boxes_words(gateway, client):
    with pytest.raises(ollama_client.ResponseError) as raised:
        list(client.pull("missing", stream=True))
    assert "pull model manifest: file does not exist" in raised.value.error
    answer = ask(gateway.address, "POST", "/api/pull", body={"model": "missing", "stream": False})
    assert "pull model manifest: file does not exist" in check_error(answer, "/api/pull", 500)


def test_a_pull_leaves_out_a_box_that_is_down(boxes, start_gateway):
    gateway = start_gateway(*(box.address for box in boxes), health_interval="1s")
    boxes[2].stop()
    gateway.await_state(boxes[2], "unhealthy", limit=SOON)
    client = ollama_client.Client(host=gateway.url)
    assert list(client.pull("gemma", stream=True))[-1].status == "success"
    assert all("gemma:latest" in tags(box) for box in boxes[:2])


def test_a_client_that_leaves_amid_a_pull_ends_it_everywhere(boxes, gateway, client):
    for box in boxes:
        box.control(interval_ms=200)
    stream = client.pull("gemma", stream=True)
    next(stream), next(stream)
    stream.close()
    wait_until(lambda: [box.counts()["cancelled"] for box in boxes] == [1, 1, 1], "the end of the pulls")


def test_a_model_is_copied_wherever_it_is(boxes, gateway, client):
    client.copy("mistral", "again")
    assert ["again:latest" in tags(box) for box in boxes] == [True, False, True]
    assert "again:latest" in tags(gateway)
    assert client.generate(model="again", prompt="x").done
    answer = ask(gateway.address, "POST", "/api/copy", body={"source": "nope", "destination": "x"})
    direct = ask(boxes[0].address, "POST", "/api/copy", body={"source": "nope", "destination": "x"})
    assert (answer.status, answer.body) == (404, direct.body)
    answer = ask(gateway.address, "POST", "/api/copy", body={"source": "mistral", "destination": "../x"})
    assert answer.status == 400


def test_a_model_is_deleted_wherever_it_is(boxes, gateway, client):
    client.delete("mistral")
    assert not any("mistral:latest" in tags(box) for box in boxes)
    assert set(tags(gateway)) == NAMES - {"mistral:latest"}
    assert [requests(box, "DELETE /api/delete") for box in boxes] == [1, 0, 1]
    with pytest.raises(ollama_client.ResponseError) as raised:
        client.delete("mistral")
    assert (raised.value.status_code, raised.value.error) == (404, "model 'mistral' not found")
    with pytest.raises(ollama_client.ResponseError) as raised:
        client.generate(model="mistral", prompt="x")
    assert raised.value.status_code == 404


@pytest.mark.parametrize("change", ["delete", "copy"])
def test_what_could_not_be_done_on_a_box_that_is_down_is_told(boxes, start_gateway, change):
    gateway = start_gateway(*(box.address for box in boxes), health_interval="1s")
    name = gateway.backend(boxes[0])["name"]
    boxes[0].stop()
    gateway.await_state(boxes[0], "unhealthy", limit=SOON)
    if change == "delete":
        answer = ask(gateway.address, "DELETE", "/api/delete", body={"model": "mistral"})
        assert "mistral:latest" not in tags(boxes[2])
    else:
        answer = ask(gateway.address, "POST", "/api/copy", body={"source": "mistral", "destination": "again"})
        assert "again:latest" in tags(boxes[2])
    assert name in check_error(answer, "/api/delete", 503)


def test_a_model_is_created_where_its_blob_was_sent(boxes, gateway, client, tmp_path):
    for number in range(3):
        file = tmp_path / f"layer {number}"
        file.write_bytes(b"layer %d of a model" % number * 10_000)
        digest = client.create_blob(file)
        assert digest == "sha256:" + hashlib.sha256(file.read_bytes()).hexdigest()
        assert httpx.head(f"{gateway.url}/api/blobs/{digest}").status_code == 200
        made = list(client.create(model=f"made{number}", files={"model.gguf": digest}, stream=True))
        assert made[-1].status == "success"
        assert f"made{number}:latest" in tags(gateway)
        assert client.generate(model=f"made{number}", prompt="x").done
    holders = [sum(name.startswith("made") for name in tags(box)) for box in boxes]
    assert sorted(holders) == [0, 0, 3], "not all at one box"


def test_a_model_is_pushed_by_a_box_that_has_it(boxes, gateway, client):
    assert list(client.push("me/mine", stream=True))[-1].status == "success"
    assert client.push("me/mine").status == "success"
    assert [requests(box, "POST /api/push") for box in boxes] == [0, 0, 2]
    with pytest.raises(ollama_client.ResponseError) as raised:
        list(client.push("nope", stream=True))
    assert "file does not exist" in raised.value.error


def test_clients_from_several_addresses_are_each_served_by_one_box(start_box, start_gateway):
    boxes = [start_box() for _ in range(3)]
    gateway = start_gateway(*(box.address for box in boxes))
    for last in range(2, 8):
        before = asked(boxes)
        for number in range(4):
            target = f"/api/blobs/sha256-{number:064d}"
            assert ask(gateway.address, "HEAD", target, source=f"127.0.0.{last}").status == 200
            assert ask(gateway.address, "POST", target, body=b"x", source=f"127.0.0.{last}").status == 200
        body = {"model": "y", "from": "x", "stream": False}
        assert ask(gateway.address, "POST", "/api/create", body=body, source=f"127.0.0.{last}").status == 200
        grown = [after - earlier for earlier, after in zip(before, asked(boxes), strict=True)]
        assert sorted(grown) == [0, 0, 9], grown


@pytest.mark.parametrize("path", ["/api/generate", "/api/chat"])
def test_a_model_is_unloaded_wherever_it_is_loaded(boxes, gateway, client, path):
    for box in boxes[:2]:
        ollama_client.Client(host=box.url).generate(model="llama3.2", prompt="x")
    wait_until(lambda: "llama3.2:latest" in running(gateway), "the loaded model", limit=7)
    loaded = lambda: [each["loaded"] for each in gateway.status()["backends"]]  # noqa: E731
    wait_until(lambda: str(loaded()).count("llama3.2:latest") == 2, "both", limit=7)
    body = {"model": "llama3.2", "keep_alive": 0} | ({"messages": []} if path == "/api/chat" else {})
    answer = ask(gateway.address, "POST", path, body=body)
    assert (answer.status, answer.json["done_reason"], answer.json["model"]) == (200, "unload", "llama3.2")
    assert not any(running(box) for box in boxes)
    wait_until(lambda: running(gateway) == {}, "nothing loaded", limit=SOON)


# MARK: What is kept of a model that changes


def test_a_new_digest_empties_the_cache_of_the_model(start_ollama, start_gateway):
    ollama = start_ollama(models="mistral@old,qwen3", tokens=8)
    gateway = start_gateway(ollama.address, cache_ttl="1h")
    body = question("/api/chat", model="mistral")
    old = missed(gateway, "/api/chat", body)
    other = missed(gateway, "/api/chat", question("/api/chat", model="qwen3"))
    assert hit(gateway, "/api/chat", body).body == old.body
    # A pull through the gateway that changes nothing changes nothing.
    assert ask(gateway.address, "POST", "/api/pull", body={"model": "qwen3"}).complete
    assert hit(gateway, "/api/chat", question("/api/chat", model="qwen3")).body == other.body
    assert ask(gateway.address, "POST", "/api/pull", body={"model": "mistral"}).complete
    wait_until(lambda: gateway.status()["cache"]["entries"] == 1, "the purge", limit=SOON)
    new = missed(gateway, "/api/chat", body)
    assert steady(new.body) != steady(old.body)
    assert hit(gateway, "/api/chat", question("/api/chat", model="qwen3")).body == other.body


def test_a_change_behind_the_gateways_back_is_found_by_a_probe(start_ollama, start_gateway):
    ollama = start_ollama(models="mistral@old", tokens=8)
    gateway = start_gateway(ollama.address, cache_ttl="1h", health_interval="1s")
    missed(gateway, "/api/chat", question("/api/chat", model="mistral"))
    assert ask(ollama.address, "POST", "/api/pull", body={"model": "mistral"}).complete
    wait_until(lambda: gateway.status()["cache"]["entries"] == 0, "the purge", limit=SOON)
    missed(gateway, "/api/chat", question("/api/chat", model="mistral"))


def test_a_deleted_model_is_not_answered_from_the_cache(start_ollama, start_gateway):
    gateway = start_gateway(start_ollama(tokens=8).address, cache_ttl="1h")
    missed(gateway, "/api/chat", question("/api/chat"))
    missed(gateway, "/api/chat", question("/api/chat", model="mistral"))
    assert ask(gateway.address, "DELETE", "/api/delete", body={"model": "llama3.2"}).status == 200
    wait_until(lambda: gateway.status()["cache"]["entries"] == 1, "the purge", limit=SOON)
    answer = ask(gateway.address, "POST", "/api/chat", body=question("/api/chat"))
    check_error(answer, "/api/chat", 404)
    hit(gateway, "/api/chat", question("/api/chat", model="mistral"))


# MARK: Who may change them

CHANGES = [
    ("POST", "/api/pull", {"model": "gemma"}),
    ("POST", "/api/push", {"model": "me/mine"}),
    ("POST", "/api/create", {"model": "made", "from": "mistral"}),
    ("POST", "/api/copy", {"source": "mistral", "destination": "again"}),
    ("DELETE", "/api/delete", {"model": "mistral"}),
    ("POST", "/api/blobs/sha256-" + "0" * 64, b"a blob"),
]


@pytest.mark.parametrize(("method", "path", "body"), CHANGES, ids=lambda value: value if isinstance(value, str) else "")
def test_nobody_changes_models_where_that_is_off(boxes, start_gateway, method, path, body):
    gateway = start_gateway(*(box.address for box in boxes), manage="off")
    check_error(ask(gateway.address, method, path, body=body), path, 403)
    for box in boxes:
        assert all(route.startswith("GET ") for route in box.counts()["requests"])
        assert box.counts()["bytes_received"] == 0
    for target in ("/api/tags", "/api/ps", "/v1/models"):
        assert ask(gateway.address, "GET", target).status == 200
    assert ask(gateway.address, "POST", "/api/show", body={"model": "qwen3"}).status == 200
    assert ask(gateway.address, "POST", PATH, body=fresh()).status == 200


def test_a_pull_may_go_to_the_first_box_only(boxes, start_gateway):
    gateway = start_gateway(*(box.address for box in boxes), manage="first")
    client = ollama_client.Client(host=gateway.url)
    assert list(client.pull("gemma", stream=True))[-1].status == "success"
    assert [requests(box, "POST /api/pull") for box in boxes] == [1, 0, 0]
    client.copy("mistral", "again")
    client.delete("mistral")
    assert ["again:latest" in tags(box) for box in boxes] == [True, False, False]
    assert ["mistral:latest" in tags(box) for box in boxes] == [False, False, True]


# MARK: Lists of boxes that say odd things


def test_fields_of_a_list_that_nobody_knows_yet_are_kept(start_box, start_gateway):
    box = start_box()
    listed = entry("llama3.2") | {"a_field_to_come": {"b": [1, 2.50, None]}, "capabilities": ["completion"]}
    box.probe = lambda exchange: (
        exchange.answer({"models": [listed]}) if exchange.asked.target == "/api/tags" else box.answer_probe(exchange)
    )
    gateway = start_gateway(box.address)
    assert tags(gateway)["llama3.2:latest"] == listed


def test_a_list_with_odd_entries_is_a_list_all_the_same(start_box, start_gateway):
    odd = [{}, {"name": 5}, {"name": ""}, None, "x", entry("llama3.2"), {"name": "bare:latest", "model": "bare:latest"}]
    box = start_box(answer_as("odd"))
    box.probe = lambda exchange: (
        exchange.answer({"models": odd}) if exchange.asked.target == "/api/tags" else box.answer_probe(exchange)
    )
    gateway = start_gateway(box.address)
    assert gateway.states() == ["healthy"]
    assert shares(gateway, 3) == {"odd": 3}
    names = [model["name"] for model in ask(gateway.address, "GET", "/api/tags").json["models"]]
    assert "llama3.2:latest" in names and all(isinstance(name, str) and name for name in names)
    assert ask(gateway.address, "GET", "/v1/models").status == 200


def test_a_fleet_that_is_all_down_says_so_or_lists_what_it_had(start_gateway):
    address, keeper = unused_address()
    with keeper:
        gateway = start_gateway(address)
        for target in ("/api/tags", "/v1/models", "/api/version", "/api/ps"):
            answer = ask(gateway.address, "GET", target)
            assert answer.status == 200 or check_error(answer, target, 503), target


def test_a_refusal_of_a_box_to_show_is_passed_on(start_box, start_gateway):
    gateway = start_gateway(start_box(refuse_with(404, message="model 'x' not found")).address)
    answer = ask(gateway.address, "POST", "/api/show", body={"model": "x"})
    assert check_error(answer, "/api/show", 404) == "model 'x' not found"
