"""The shapes of errors: Ollama's own, OpenAI's and Anthropic's."""

import json

PATHS = [
    "/api/chat",
    "/api/generate",
    "/api/tags",
    "/no/such/path",
    "/v1/chat/completions",
    "/v1/models",
    "/v1/responses",
    "/v1/messages",
]


def is_text(value):
    return isinstance(value, str) and value.strip() != ""


def check_error_object(path, error):
    """Fails unless `error` is the JSON of an error as clients of this path expect it. Returns its message."""
    if path.startswith("/v1/messages"):
        assert error["type"] == "error", error
        assert is_text(error["error"]["type"]) and is_text(error["error"]["message"]), error
        return error["error"]["message"]
    if path.startswith("/v1/"):
        assert set(error["error"]) == {"message", "type", "param", "code"}, error
        assert is_text(error["error"]["message"]) and is_text(error["error"]["type"]), error
        return error["error"]["message"]
    assert set(error) == {"error"} and is_text(error["error"]), error
    return error["error"]


def check_error(answer, path, *statuses):
    """Fails unless `answer` is a whole error answer with one of the statuses. Returns its message."""
    assert answer.status in statuses, (answer.status, answer.body)
    assert answer.content_type == "application/json"
    assert answer.complete
    return check_error_object(path, answer.json)


def events(body):
    """Server-sent events as the standard has it: pairs of event name and data."""
    found, name, data = [], None, []
    for line in body.decode().replace("\r\n", "\n").split("\n"):
        if not line:
            if data:
                found.append((name, "\n".join(data)))
            name, data = None, []
        elif line.startswith("event:"):
            name = line[6:].strip()
        elif line.startswith("data:"):
            data.append(line[5:].removeprefix(" "))
    return found


def last_event(body):
    """The last server-sent event's data as JSON."""
    return json.loads(events(body)[-1][1])
