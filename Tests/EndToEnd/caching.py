"""What a gateway says about its cache, questions whose answers it may keep, and what two answers have in common."""

import json
import re

from boxes import NDJSON, SSE
from dialects import events
from talking import STREAMING
from wire import ask

VECTORS = ["/api/embed", "/api/embeddings", "/v1/embeddings"]
CACHEABLE = [*STREAMING, *VECTORS]
NEVER_KEPT = ["/v1/responses", "/v1/messages"]
SKY = "Why is the sky blue?"

FORMS = [(path, {"stream": stream}) for path in STREAMING for stream in (True, False)]
FORMS += [(path, {"stream": True, "stream_options": {"include_usage": True}}) for path in STREAMING if "v1" in path]
FORMS += [(path, {}) for path in VECTORS]
"""Each path with each form that its answer may have."""


def name(form):
    """What pytest calls a path, or a form of its answers."""
    if isinstance(form, dict):
        if "stream_options" in form:
            return "with usage"
        return {True: "stream", False: "whole"}.get(form.get("stream"), "")
    return form


def question(path, text=SKY, **fields):
    """The body of a request to `path` about `text`, with further fields."""
    body = {"model": "nomic-embed-text" if path in VECTORS else "llama3.2"}
    match path:
        case "/api/chat" | "/v1/chat/completions":
            body["messages"] = [{"role": "user", "content": text}]
        case "/v1/messages":
            body |= {"messages": [{"role": "user", "content": text}], "max_tokens": 64}
        case "/api/embed" | "/v1/embeddings" | "/v1/responses":
            body["input"] = text
        case _:
            body["prompt"] = text
    return body | fields


def post(gateway, path, body, *fields, **options):
    """One request on a connection of its own."""
    return ask(gateway.address, "POST", path, fields, body, **options)


# MARK: What it says


PARAMETER = re.compile(r"([a-z*][a-z0-9_.*-]*)(?:=(-?\d{1,15}|\"[^\"\\]*\"|[A-Za-z*][A-Za-z0-9!#$%&'*+.^_`|~:/-]*))?")


def cache_status(answer):
    """The parameters of the field Cache-Status: RFC 9211, in the syntax of RFC 8941."""
    (value,) = answer.headers("Cache-Status")
    cache, *parameters = [part.strip(" ") for part in value.decode().split(";")]
    assert cache == "ollama-gateway", value
    found = {}
    for parameter in parameters:
        match = PARAMETER.fullmatch(parameter)
        assert match, f"not a parameter: {parameter!r}"
        key, given = match.groups()
        assert key not in found, f"twice: {key}"
        found[key] = True if given is None else int(given) if re.fullmatch(r"-?\d+", given) else given
    return found


def told(answer):
    """The word of X-Cache. Fails if the other fields do not agree with it."""
    words = answer.headers("X-Cache")
    assert len(words) == 1, f"X-Cache: {words} in an answer of status {answer.status}: {answer.body[:200]}"
    word, status = words[0].decode(), cache_status(answer)
    if word != "HIT":
        assert answer.headers("Age") == [], "only what was kept has an age"
    match word:
        case "HIT":
            assert set(status) == {"hit", "ttl"} and status["hit"] is True, status
            assert type(status["ttl"]) is int, status
            (age,) = answer.headers("Age")
            assert re.fullmatch(rb"\d+", age), age
        case "MISS":
            assert set(status) <= {"fwd", "stored"} and status.get("stored", True) is True, status
            assert status["fwd"] in ("miss", "request", "stale"), status
        case "COALESCED":
            assert status == {"fwd": "miss", "collapsed": True}
        case "BYPASS":
            assert set(status) == {"fwd", "detail"} and status["fwd"] == "bypass", status
            assert re.fullmatch(r'"?[A-Za-z][A-Za-z-]*"?', str(status["detail"])), status
        case _:
            raise AssertionError(f"X-Cache: {word}")
    return word


def says_nothing_of_a_cache(answer):
    return not any(answer.headers(field) for field in ("X-Cache", "Cache-Status", "Age"))


def missed(gateway, path, body, *fields, **options):
    """Asks what is not kept, and returns the answer."""
    answer = post(gateway, path, body, *fields, **options)
    assert (answer.status, told(answer), answer.complete) == (200, "MISS", True), (answer.status, answer.fields)
    return answer


def hit(gateway, path, body, *fields, **options):
    """Asks what is kept, and returns the answer."""
    answer = post(gateway, path, body, *fields, **options)
    assert (answer.status, told(answer), answer.complete) == (200, "HIT", True), (answer.status, answer.fields)
    return answer


def bypassed(gateway, path, body, *fields, status=200, **options):
    """Asks what goes past the cache, and returns the answer."""
    answer = post(gateway, path, body, *fields, **options)
    assert (answer.status, told(answer), answer.complete) == (status, "BYPASS", True), (answer.status, answer.fields)
    return answer


# MARK: What it answers

METRICS = [
    "total_duration", "load_duration", "prompt_eval_count", "prompt_eval_duration", "eval_count", "eval_duration",
]  # fmt: skip


def is_whole(path, answer):
    """Whether the answer says that it is all there is."""
    if not answer.complete or answer.status != 200:
        return False
    if answer.content_type == NDJSON:
        return bool(answer.lines) and json.loads(answer.lines[-1]).get("done") is True
    if answer.content_type == SSE:
        found = events(answer.body)
        return bool(found) and found[-1][1] == "[DONE]" and gist(path, answer)["reason"] is not None
    return path in VECTORS or gist(path, answer)["reason"] is not None


def gist(path, answer):
    """What an answer says, whichever form it has; for two answers of one call it is the same.

    What a form does not tell is None: a stream on /v1 may leave out the usage.
    """
    assert answer.complete and answer.status == 200, (answer.status, answer.body[:200])
    if answer.content_type == NDJSON:
        return native_gist([json.loads(line) for line in answer.lines])
    if answer.content_type == SSE:
        *parts, (_, last) = events(answer.body)
        assert last == "[DONE]", answer.body[-200:]
        return openai_gist([json.loads(data) for _, data in parts])
    if path.startswith("/api/"):
        return native_gist([answer.json])
    return openai_gist([answer.json])


def native_gist(parts):
    """Of lines of /api/chat or /api/generate."""
    *earlier, last = parts
    assert all(part["done"] is False for part in earlier), "something follows the last line"
    messages = [part.get("message", part) for part in parts]
    return {
        "model": [*{part["model"] for part in parts}],
        "text": "".join(message.get("content", message.get("response", "")) for message in messages),
        "thinking": "".join(message.get("thinking") or "" for message in messages),
        "calls": [call for message in messages for call in message.get("tool_calls") or []],
        "logprobs": [entry for part in parts for entry in part.get("logprobs") or []],
        "reason": last["done_reason"] if last["done"] else None,
        "context": last.get("context"),
    } | {name: last.get(name) for name in METRICS}


def openai_gist(parts):
    """Of events of /v1/chat/completions or /v1/completions, or of one object."""
    choices = [choice for part in parts for choice in part["choices"]]
    said = [choice.get("message") or choice.get("delta") or choice for choice in choices]
    logprobs = [choice.get("logprobs") or {} for choice in choices]
    reasons = [choice["finish_reason"] for choice in choices if choice.get("finish_reason")]
    assert len(reasons) <= 1, reasons
    usages = [part["usage"] for part in parts if part.get("usage") and part["usage"]["total_tokens"]]
    assert len(usages) <= 1, usages
    return {
        "id": [*{part["id"] for part in parts}],
        "created": [*{part["created"] for part in parts}],
        "model": [*{part["model"] for part in parts}],
        "fingerprint": [*{part["system_fingerprint"] for part in parts}],
        "text": "".join(part.get("content") or part.get("text") or "" for part in said),
        "thinking": "".join(part.get("reasoning") or "" for part in said),
        "calls": [call for part in said for call in part.get("tool_calls") or []],
        "logprobs": [entry for each in logprobs for entry in each.get("content") or []],
        "reason": reasons[0] if reasons else None,
        "usage": usages[0] if usages else None,
    }


def agree(one, other):
    """Fails unless two gists say the same where both say something."""
    for key in one:
        if one[key] is not None and other[key] is not None:
            assert one[key] == other[key], key
