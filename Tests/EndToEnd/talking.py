"""A box whose answers a test lets out word by word, in the form and on the endpoint that it was asked for."""

import json
import queue
import socket
import threading

from boxes import NDJSON, SSE
from wire import LIMIT, wait_until

STREAMING = ["/api/generate", "/api/chat", "/v1/chat/completions", "/v1/completions"]
"""The paths whose answers come as a stream or whole."""
VECTOR = [0.6, -0.8]
PROMPT_TOKENS = 7


class Talk:
    """A script for ScriptedBox: hands each request to the test and waits for what the test does with it."""

    def __init__(self):
        self.waiting = queue.Queue()
        self.all = []

    def __call__(self, exchange):
        call = Call(exchange, len(self.all))
        self.all.append(call)
        self.waiting.put(call)
        call.attend()

    def call(self, limit=LIMIT):
        """The next request at the box."""
        try:
            return self.waiting.get(timeout=limit)
        except queue.Empty:
            raise AssertionError(f"no further call came to the box within {limit} s") from None

    @property
    def is_silent(self):
        """Whether no call is at the box that the test has not taken."""
        return self.waiting.empty()

    @property
    def running(self):
        return [call for call in self.all if not call.over.is_set() and not call.departed.is_set()]


class Call:
    """One request at the box. No two answers are alike: their times and ids tell which call they belong to."""

    def __init__(self, exchange, number):
        self.exchange = exchange
        self.number = number
        self.path = exchange.asked.target
        self.body = json.loads(exchange.asked.body)
        stream = self.body.get("stream")
        self.streams = self.path in STREAMING and (self.path.startswith("/api/") if stream is None else stream)
        self.said = []
        self.has_begun = False
        self.over = threading.Event()
        self.departed = threading.Event()

    @property
    def question(self):
        """What the user said last."""
        if "messages" in self.body:
            return self.body["messages"][-1]["content"]
        return self.body.get("prompt", self.body.get("input"))

    # MARK: On the box's thread

    def attend(self):
        """Returns when the test has ended the answer, or the gateway the call."""
        while not self.over.wait(0.003):
            try:
                gone = not self.exchange.plug.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
            except BlockingIOError:
                gone = False
            except OSError:
                gone = True
            if gone:
                self.exchange.closing = True
                self.departed.set()
                return

    # MARK: What the test does

    def say(self, *words):
        for word in words:
            self.said.append(word)
            if self.streams:
                self._begin()
                self.exchange.chunk(self._line(word))
        return self

    def end(self):
        """Completes the answer."""
        if self.streams:
            self._begin()
            for line in self._last_lines():
                self.exchange.chunk(line)
            self.exchange.end_stream()
        else:
            self.exchange.answer(self._whole())
        self.over.set()

    def end_abruptly(self):
        """Ends the stream as if it were complete, but without its last words."""
        self._begin()
        self.exchange.end_stream()
        self.over.set()

    def send(self, data):
        """A chunk of the test's own."""
        self._begin()
        self.exchange.chunk(data)

    def refuse(self, status, message):
        """An error instead of an answer."""
        error = {"error": message}
        if self.path.startswith("/v1/"):
            error = {"error": {"message": message, "type": "api_error", "param": None, "code": None}}
        self.exchange.answer(error, status=f"{status} Refused")
        self.over.set()

    def cut(self, reset=False):
        # The socket is the other thread's to close.
        self.exchange.closing = True
        if reset:
            self.exchange.plug.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        else:
            self.exchange.plug.shutdown(socket.SHUT_RDWR)
        self.over.set()

    def wait_for_departure(self, limit=LIMIT):
        wait_until(self.departed.is_set, "the end of the call", limit)

    # MARK: The words

    def _begin(self):
        if not self.has_begun:
            self.has_begun = True
            self.exchange.start_stream(NDJSON if self.path.startswith("/api/") else SSE)

    @property
    def _wants_usage(self):
        return bool((self.body.get("stream_options") or {}).get("include_usage"))

    @property
    def _usage(self):
        count = len(self.said)
        return {"prompt_tokens": PROMPT_TOKENS, "completion_tokens": count, "total_tokens": PROMPT_TOKENS + count}

    @property
    def _stamp(self):
        return {"model": self.body["model"], "created_at": f"2026-08-21T18:48:22.{self.number + 1:09d}Z"}

    @property
    def _metrics(self):
        return {
            "total_duration": 4_883_583_458 + self.number,
            "load_duration": 1_334_875,
            "prompt_eval_count": PROMPT_TOKENS,
            "prompt_eval_duration": 342_546_000,
            "eval_count": len(self.said),
            "eval_duration": 4_535_599_000,
        }

    def _native(self, text, **rest):
        if self.path == "/api/chat":
            return self._stamp | {"message": {"role": "assistant", "content": text}} | rest
        return self._stamp | {"response": text} | rest

    def _openai(self, choice, **rest):
        kind = "chat.completion" if self.path == "/v1/chat/completions" else "text_completion"
        if self.streams and kind == "chat.completion":
            kind += ".chunk"
        identifier = ("chatcmpl-" if "chat" in kind else "cmpl-") + str(self.number)
        head = {"id": identifier, "object": kind, "created": 1_787_337_702 + self.number, "model": self.body["model"]}
        choices = [] if choice is None else [{"index": 0} | choice]
        return head | {"system_fingerprint": "fp_ollama", "choices": choices} | rest

    def _event(self, choice, **rest):
        return b"data: " + compact(self._openai(choice, **rest)) + b"\n\n"

    def _line(self, word):
        if self.path.startswith("/api/"):
            return compact(self._native(word, done=False)) + b"\n"
        if self.path == "/v1/completions":
            return self._event({"text": word, "finish_reason": None}, **self._zero_usage)
        role = {"role": "assistant"} if len(self.said) == 1 else {}
        return self._event({"delta": role | {"content": word}, "finish_reason": None})

    @property
    def _zero_usage(self):
        zero = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
        return {"usage": zero} if self._wants_usage else {}

    def _last_lines(self):
        if self.path.startswith("/api/"):
            return [compact(self._native("", done=True, done_reason="stop", **self._metrics)) + b"\n"]
        usage = [self._event(None, usage=self._usage)] if self._wants_usage else []
        if self.path == "/v1/completions":
            last = self._event({"text": "", "finish_reason": "stop"}, **self._zero_usage)
        else:
            last = self._event({"delta": {}, "finish_reason": "stop"})
        return [last, *usage, b"data: [DONE]\n\n"]

    def _whole(self):
        text = "".join(self.said)
        match self.path:
            case "/api/chat" | "/api/generate":
                return self._native(text, done=True, done_reason="stop", **self._metrics)
            case "/api/embed":
                duration = {"total_duration": 14_143_917 + self.number, "load_duration": 1_019_500}
                return {"model": self.body["model"], "embeddings": [VECTOR], **duration, "prompt_eval_count": 8}
            case "/api/embeddings":
                return {"embedding": [*VECTOR, float(self.number)]}
            case "/v1/embeddings":
                data = [{"object": "embedding", "embedding": [*VECTOR, float(self.number)], "index": 0}]
                usage = {"prompt_tokens": 8, "total_tokens": 8}
                return {"object": "list", "data": data, "model": self.body["model"], "usage": usage}
            case "/v1/completions":
                return self._openai({"text": text, "finish_reason": "stop"}, usage=self._usage)
            case "/v1/chat/completions":
                message = {"role": "assistant", "content": text}
                return self._openai({"message": message, "finish_reason": "stop"}, usage=self._usage)
            case _:
                return {"id": f"msg_{self.number}", "model": self.body.get("model"), "text": text}


def compact(value):
    """JSON as Go writes it."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()
