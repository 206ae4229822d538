"""Questions that are the same, that differ, that may be kept and that may not."""

import json

from caching import NEVER_KEPT, SKY, question

# MARK: Of all kinds, to be asked as a stream and whole

VARIANTS = [
    ("/api/generate", {}),
    ("/api/generate", {"raw": True}),
    ("/api/generate", {"system": "Be brief.", "template": "{{ .Prompt }}"}),
    ("/api/generate", {"model": "qwen3"}),
    ("/api/generate", {"model": "qwen3", "think": False}),
    ("/api/generate", {"model": "codellama", "suffix": "return result"}),
    ("/api/generate", {"model": "llava", "images": ["aGVsbG8="]}),
    ("/api/generate", {"logprobs": True}),
    ("/api/generate", {"logprobs": True, "top_logprobs": 3, "model": "qwen3"}),
    ("/api/generate", {"options": {"num_predict": 3}}),
    ("/api/generate", {"options": {"num_predict": 1}}),
    ("/api/generate", {"format": "json"}),
    ("/api/generate", {"context": [1, 2, 3]}),
    ("/api/chat", {}),
    ("/api/chat", {"model": "qwen3", "think": True}),
    ("/api/chat", {"logprobs": True, "top_logprobs": 2}),
    ("/api/chat", {"options": {"num_predict": 2, "stop": ["zzz"]}}),
    ("/api/chat", {"format": {"type": "object", "properties": {"b": {"type": "string"}, "a": {"type": "integer"}}}}),
    ("/v1/chat/completions", {}),
    ("/v1/chat/completions", {"model": "qwen3"}),
    ("/v1/chat/completions", {"logprobs": True, "top_logprobs": 2}),
    ("/v1/chat/completions", {"max_tokens": 2}),
    ("/v1/chat/completions", {"response_format": {"type": "json_object"}, "temperature": 0.5}),
    ("/v1/completions", {}),
    ("/v1/completions", {"model": "qwen3"}),
    ("/v1/completions", {"max_tokens": 2}),
]

# MARK: One question in many ways


def written(body, **options):
    return json.dumps(body, **options).encode()


BASE = {
    "model": "llama3.2",
    "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Über A/B?"}],
    "options": {"seed": 1, "temperature": 0, "stop": ["x", "y"]},
}
REVERSED = {
    "options": {"stop": ["x", "y"], "temperature": 0, "seed": 1},
    "messages": [{"content": "Be brief.", "role": "system"}, {"content": "Über A/B?", "role": "user"}],
    "model": "llama3.2",
}
SAME = {
    "the same bytes": written(BASE),
    "another order of fields": written(REVERSED),
    "white space": written(BASE, indent=4),
    "no white space": written(BASE, separators=(",", ":")),
    "white space around it": b" \r\n\t" + written(BASE) + b"\n \n",
    "letters not escaped": written(BASE, ensure_ascii=False),
    "letters escaped": written(BASE).replace(b"brief", b"\\u0062r\\u0069ef").replace(b"A/B", b"A\\/B"),
    "field names escaped": written(BASE).replace(b'"role"', b'"r\\u006fle"'),
    "a stream": written(BASE | {"stream": True}),
    "whole": written(BASE | {"stream": False}),
    "stream null": written(BASE | {"stream": None}),
    "keep_alive": written(BASE | {"keep_alive": "10m"}),
    "keep_alive for ever": written(BASE | {"keep_alive": -1}),
    "the usual tag": written(BASE | {"model": "llama3.2:latest"}),
}

# MARK: Questions that no two are the same of

BIG = 9007199254740993
DIFFERENT = [
    ("/api/chat", {"messages": [{"role": "user", "content": SKY + " "}]}),
    ("/api/chat", {"messages": [{"role": "system", "content": SKY}]}),
    ("/api/chat", {"messages": [{"role": "user", "content": SKY}] * 2}),
    ("/api/chat", {"messages": [{"role": "user", "content": SKY, "images": ["aGVsbG8="]}], "model": "llava"}),
    ("/api/chat", {"model": "mistral"}),
    ("/api/chat", {"model": "qwen3", "think": False}),
    ("/api/chat", {"options": {}, "logprobs": True}),
    ("/api/chat", {"logprobs": True, "top_logprobs": 2}),
    ("/api/chat", {"format": "json"}),
    ("/api/chat", {"options": {"seed": 1}}),
    ("/api/chat", {"options": {"seed": 2}}),
    ("/api/chat", {"options": {"seed": BIG}}),
    ("/api/chat", {"options": {"temperature": 0}}),
    ("/api/chat", {"options": {"num_predict": 3}}),
    ("/api/chat", {"options": {"num_ctx": 8192}}),
    ("/api/chat", {"options": {"stop": ["x"]}}),
    ("/api/chat", {"truncate": False}),
    ("/api/chat", {"shift": False}),
    ("/api/chat", {"a_field_to_come": 1}),
    ("/api/generate", {"system": "Be brief."}),
    ("/api/generate", {"template": "{{ .Prompt }}"}),
    ("/api/generate", {"raw": True}),
    ("/api/generate", {"suffix": "x", "model": "codellama"}),
    ("/api/generate", {"context": [1, 2]}),
    ("/api/generate", {"prompt": "caf\u00e9"}),
    ("/api/generate", {"prompt": "cafe\u0301"}),
    ("/v1/chat/completions", {"temperature": 0.5}),
    ("/v1/chat/completions", {"seed": 4}),
    ("/v1/chat/completions", {"max_tokens": 3}),
    ("/v1/chat/completions", {"stop": ["x"]}),
    ("/v1/chat/completions", {"response_format": {"type": "json_object"}}),
    ("/v1/completions", {"top_p": 0.5}),
    ("/api/embed", {"input": ["one", "two"]}),
    ("/api/embed", {"input": ["two", "one"]}),
    ("/api/embed", {"dimensions": 16}),
    ("/api/embed", {"model": "all-minilm"}),
    ("/v1/embeddings", {"encoding_format": "base64"}),
    ("/v1/embeddings", {"input": ["one"]}),
    ("/api/embeddings", {"prompt": "two"}),
]

# MARK: What must go past the cache

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": "The weather",
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
        },
    }
]
WEATHER = "Use get_weather for Oslo."
PAST = {
    "tools on /api/chat": ("/api/chat", question("/api/chat", WEATHER, tools=TOOLS)),
    "tools on /v1/chat/completions": ("/v1/chat/completions", question("/v1/chat/completions", WEATHER, tools=TOOLS)),
    "no prompt": ("/api/generate", {"model": "llama3.2"}),
    "an empty prompt": ("/api/generate", question("/api/generate", "")),
    "no messages": ("/api/chat", {"model": "llama3.2"}),
    "empty messages": ("/api/chat", {"model": "llama3.2", "messages": []}),
    "an empty prompt on /v1": ("/v1/completions", question("/v1/completions", "")),
    "unload by prompt": ("/api/generate", {"model": "llama3.2", "keep_alive": 0}),
    "unload by messages": ("/api/chat", {"model": "llama3.2", "messages": [], "keep_alive": 0}),
    "keep_alive 0": ("/api/chat", question("/api/chat", keep_alive=0)),
    "keep_alive 0 of a vector": ("/api/embed", question("/api/embed", keep_alive=0)),
    "a key twice": ("/api/generate", b'{"model":"llama3.2","prompt":"a","prompt":"b"}'),
    "a key twice within": ("/api/generate", b'{"model":"llama3.2","prompt":"a","options":{"seed":1,"seed":2}}'),
    "a key twice, once escaped": ("/api/generate", b'{"model":"llama3.2","prompt":"a","pr\\u006fmpt":"b"}'),
    "something behind": ("/api/generate", b'{"model":"llama3.2","prompt":"a"} {}'),
} | {path: (path, question(path)) for path in NEVER_KEPT}

# MARK: What is determined, and what is left to chance

DETERMINISTIC = [
    ("/api/chat", {"options": {"temperature": 0}}),
    ("/api/chat", {"options": {"temperature": 0.0, "num_predict": 5}}),
    ("/api/generate", {"options": {"seed": 42}}),
    ("/api/generate", {"options": {"seed": 42, "temperature": 0.7}}),
    ("/v1/chat/completions", {"temperature": 0}),
    ("/v1/chat/completions", {"seed": 1}),
    ("/v1/completions", {"seed": 1}),
    ("/api/embed", {}),
    ("/api/embeddings", {}),
    ("/v1/embeddings", {}),
]
RANDOM = [
    ("/api/chat", {}),
    ("/api/chat", {"options": {"temperature": 0.1}}),
    # Ollama heeds them only within `options`.
    ("/api/chat", {"temperature": 0, "seed": 1}),
    ("/api/generate", {"seed": 1}),
    ("/v1/chat/completions", {}),
    ("/v1/chat/completions", {"temperature": 1}),
    ("/v1/chat/completions", {"options": {"temperature": 0, "seed": 1}}),
    ("/v1/completions", {}),
]
