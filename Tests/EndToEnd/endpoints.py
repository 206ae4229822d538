"""Every endpoint of Ollama with a request for it, and what differs between two equal answers."""

import re

CHAT = {"model": "llama3.2", "messages": [{"role": "user", "content": "Why is the sky blue?"}]}
GENERATE = {"model": "llama3.2", "prompt": "Why is the sky blue?"}
MESSAGES = CHAT | {"max_tokens": 64}
WHOLE = {"stream": False}
STREAM = {"stream": True}
UNKNOWN = {"model": "nope"}

ENDPOINTS = [
    ("HEAD", "/", None),
    ("GET", "/", None),
    ("GET", "/api/version", None),
    ("HEAD", "/api/version", None),
    ("GET", "/api/tags", None),
    ("HEAD", "/api/tags", None),
    ("GET", "/api/ps", None),
    ("POST", "/api/show", {"model": "llama3.2"}),
    ("POST", "/api/show", UNKNOWN),
    ("POST", "/api/generate", GENERATE),
    ("POST", "/api/generate", GENERATE | WHOLE),
    ("POST", "/api/generate", GENERATE | UNKNOWN),
    ("POST", "/api/generate", {"model": "llama3.2"}),
    ("POST", "/api/chat", CHAT),
    ("POST", "/api/chat", CHAT | WHOLE),
    ("POST", "/api/chat", CHAT | UNKNOWN),
    ("POST", "/api/chat", CHAT | {"model": ""}),
    ("POST", "/api/chat", None),
    ("POST", "/api/embed", {"model": "nomic-embed-text", "input": ["one", "two"]}),
    ("POST", "/api/embed", UNKNOWN | {"input": "one"}),
    ("POST", "/api/embeddings", {"model": "nomic-embed-text", "prompt": "one"}),
    ("POST", "/api/pull", {"model": "llama3.2"}),
    ("POST", "/api/pull", {"model": "llama3.2"} | WHOLE),
    ("POST", "/api/copy", {"source": "llama3.2", "destination": "copied"}),
    ("POST", "/api/copy", {"source": "nope", "destination": "copied"}),
    ("DELETE", "/api/delete", UNKNOWN),
    ("HEAD", "/api/blobs/sha256-" + "0" * 64, None),
    ("GET", "/v1/models", None),
    ("GET", "/v1/models/llama3.2", None),
    ("GET", "/v1/models/nope", None),
    ("POST", "/v1/chat/completions", CHAT),
    ("POST", "/v1/chat/completions", CHAT | STREAM),
    ("POST", "/v1/chat/completions", CHAT | STREAM | {"stream_options": {"include_usage": True}}),
    ("POST", "/v1/chat/completions", CHAT | UNKNOWN),
    ("POST", "/v1/completions", GENERATE),
    ("POST", "/v1/completions", GENERATE | STREAM),
    ("POST", "/v1/embeddings", {"model": "nomic-embed-text", "input": "one"}),
    ("POST", "/v1/embeddings", UNKNOWN | {"input": "one"}),
    ("POST", "/v1/responses", {"model": "llama3.2", "input": "Why is the sky blue?"}),
    ("POST", "/v1/responses", {"model": "llama3.2", "input": "Why is the sky blue?"} | STREAM),
    ("POST", "/v1/messages", MESSAGES),
    ("POST", "/v1/messages", MESSAGES | STREAM),
    ("POST", "/v1/messages", MESSAGES | UNKNOWN),
    ("GET", "/no/such/path", None),
    ("DELETE", "/api/tags", None),
    ("GET", "/api/chat", None),
]


def name(endpoint):
    """What pytest calls a case: method, path and what is special about the body."""
    method, path, body = endpoint
    words = [method, path]
    if body:
        words += [f"{key}={body[key]}" for key in ("model", "stream") if key in body]
    return " ".join(words)


VOLATILE = [
    (rb'"(created_at|expires_at|modified_at)":"[^"]*"', rb'"\1":"TIME"'),
    (rb'"(created|created_at|completed_at)":\d+(\.\d+)?', rb'"\1":0'),
    # Zero is left out by Ollama: these may be there or not.
    (rb'"(total_duration|load_duration|prompt_eval_duration|eval_duration)":\d+,?', rb""),
    (rb'"request_id":"[^"]*"', rb'"request_id":"ID"'),
    (rb'"(id|item_id|call_id)":"(chatcmpl|cmpl|resp|msg|req|rs|call|fc|toolu)[-_][^"]*"', rb'"\1":"ID"'),
    (rb",}", rb"}"),
]


def steady(body):
    """The bytes of a body without those that differ from answer to answer: times and ids."""
    for pattern, replacement in VOLATILE:
        body = re.sub(pattern, replacement, body)
    return body
