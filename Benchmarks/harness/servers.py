"""Who plays which part: the gateway or nginx in its place, bare libmicrohttpd, the fast backend, the simulated box."""

import json
import os
import shutil
import subprocess
import tempfile

from .processes import DESCRIPTORS, LOAD_CORE, SERVER_CORE, Failure, Process, free_port

_BARE_MHD = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "BareMHD", "bare-mhd.c")

_COMMON = """
worker_processes 1;
daemon off;
pid {folder}/nginx.pid;
error_log stderr error;
events {{ worker_connections {connections}; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    keepalive_requests 100000000;
    keepalive_timeout 300s;
    {server}
}}
"""

_BACKEND = """
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        default_type application/json;
        location = /api/tags {{ return 200 '{tags}'; }}
        location = /api/ps {{ return 200 '{{"models":[]}}'; }}
        location = /api/version {{ return 200 '{{"version":"0.33.0"}}'; }}
        location / {{ return 200 '{answer}'; }}
    }}
"""

_PROXY = """
    upstream backend {{
        server 127.0.0.1:{backend};
        keepalive 64;
        keepalive_requests 100000000;
        keepalive_timeout 300s;
    }}
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        location = /health {{ default_type application/json; return 200 '{{"status":"healthy"}}'; }}
        location / {{
            proxy_pass http://backend;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header Host 127.0.0.1:{backend};
            {options}
        }}
    }}
"""

# Answers lie in the page cache; no request body touches the disk.
_CACHE = "proxy_cache_path {folder}/cache keys_zone=answers:10m inactive=1d;" + _PROXY
_CACHE_OPTIONS = """
            proxy_cache answers;
            proxy_cache_methods POST;
            proxy_cache_key "$request_uri|$request_body";
            proxy_cache_valid 200 1h;
            client_body_buffer_size 64k;
            add_header X-Cache $upstream_cache_status;
"""
# The answers' files stay open: about a quarter of nginx's CPU a hit is saved.
_TUNED = """
            open_file_cache max=1000 inactive=1h;
            open_file_cache_valid 1h;
"""

# What is asked: about 110 bytes.
PATH = "/api/generate"
QUESTION = json.dumps({
    "model": "llama3.2",
    "prompt": "Why is the sky blue? Answer in one short sentence, please.",
    "stream": False,
}, separators=(",", ":"))

# A plain answer of POST /api/generate, 925 bytes long.
ANSWER = json.dumps({
    "model": "llama3.2",
    "created_at": "2026-02-02T16:47:16.414524Z",
    "response": "",
    "done": True,
    "done_reason": "stop",
    "context": [128006, 9125, 128007, 271, 38766, 1303, 33025, 2696, 25, 6790, 220, 2366, 18],
    "total_duration": 4935886791,
    "load_duration": 534986708,
    "prompt_eval_count": 26,
    "prompt_eval_duration": 107345000,
    "eval_count": 237,
    "eval_duration": 4289432000,
}, separators=(",", ":"))
_SENTENCE = "The sky is blue because air scatters short waves of light far more than long ones. "
ANSWER = ANSWER.replace('"response":""', '"response":"%s"' % (_SENTENCE * 8)[:925 - len(ANSWER)])
assert len(ANSWER) == 925


# The backends' only model, for the gateway's probes.
TAGS = json.dumps({"models": [{"name": "llama3.2:latest", "digest": "d", "modified_at": "2026-02-02T00:00:00Z"}]})


class Nginx(Process):
    def __init__(self, name, server, core, **values):
        self._folder = tempfile.mkdtemp(prefix="bench-nginx-")
        os.chmod(self._folder, 0o755)
        port = free_port()
        path = os.path.join(self._folder, "nginx.conf")
        with open(path, "w") as file:
            file.write(_COMMON.format(
                folder=self._folder, connections=DESCRIPTORS,
                server=server.format(port=port, folder=self._folder, **values)))
        super().__init__(name, ["nginx", "-p", self._folder, "-e", "stderr", "-c", path], core, ready=port)

    def end(self):
        super().end()
        shutil.rmtree(self._folder, ignore_errors=True)


def fast_backend():
    return Nginx("nginx (backend)", _BACKEND, LOAD_CORE, answer=ANSWER, tags=TAGS)


def proxy(backend_port, streaming=False):
    """nginx as the proxy to compare with; `streaming` hands every chunk on at once, as the gateway does."""
    options = "proxy_buffering off; proxy_read_timeout 600s;" if streaming else ""
    return Nginx("nginx (proxy)", _PROXY, SERVER_CORE, backend=backend_port, options=options)


def caching_proxy(backend_port, tuned=False):
    """nginx as the cache to compare with: of POST requests, by path and body."""
    name = "nginx (tuned cache)" if tuned else "nginx (cache)"
    return Nginx(name, _CACHE, SERVER_CORE, backend=backend_port, options=_CACHE_OPTIONS + _TUNED * tuned)


class BareMHD(Process):
    """libmicrohttpd and nothing else: the same answer to everything. Compiled for the occasion."""

    def __init__(self, body, fields):
        self._folder = tempfile.mkdtemp(prefix="bench-bare-mhd-")
        try:
            program = os.path.join(self._folder, "bare-mhd")
            compiled = subprocess.run(["gcc", "-O2", "-o", program, _BARE_MHD, "-lmicrohttpd"],
                                      capture_output=True, text=True, timeout=60)
            if compiled.returncode:
                raise Failure(f"gcc did not compile bare-mhd.c: {compiled.stderr[-300:]}")
            command = [program, body, *(word for field in fields for word in field)]
            super().__init__("bare libmicrohttpd", command, SERVER_CORE, ready=True)
        except BaseException:
            self._remove()
            raise

    def end(self):
        super().end()
        self._remove()

    def _remove(self):
        shutil.rmtree(self._folder, ignore_errors=True)


class Programs:
    """Our own binaries, and what stands in for the gateway in a calibration."""

    def __init__(self, folder, calibrate):
        self.folder = folder
        self.calibrate = calibrate

    @property
    def missing(self):
        names = ["simulated-ollama", "stream-load"] + ([] if self.calibrate else ["ollama-gateway"])
        return [name for name in names if not os.access(self.path(name), os.X_OK)]

    def path(self, name):
        return os.path.join(self.folder, name)

    def gateway(self, backend_port=9, streaming=False, cache_ttl="0", under=(), options=()):
        """`under`: the words of a program that runs it, which may be slow to start."""
        if self.calibrate:
            return proxy(backend_port, streaming) if cache_ttl == "0" else caching_proxy(backend_port)
        command = [*under, *self.gateway_command(backend_port, cache_ttl), *options]
        return Process("ollama-gateway", command, SERVER_CORE, ready=True, patience=60 if under else 10)

    def gateway_command(self, backend_port, cache_ttl):
        """No access lines (they begin at `info`), nobody is refused, and nothing waits for a place at the backend."""
        return [self.path("ollama-gateway"), "--port", "0", "--backends", f"127.0.0.1:{backend_port}",
                "--log-level", "notice", "--cache-ttl", cache_ttl, "--rate-limit", "0",
                "--concurrency", "100000", "--queue-limit", "100000"]

    def box(self, interval):
        """A simulated box that never ends a stream, never queues, and stamps each token with the time."""
        command = [self.path("simulated-ollama"), "--port", "0", "--stamp", "--interval", interval,
                   "--first-token", "50ms", "--tokens", "1000000", "--parallel", "100000", "--max-queue", "100000"]
        return Process("simulated-ollama", command, LOAD_CORE, ready=True)

    def slow_box(self, first_token):
        """A simulated box that thinks for so long, and then says everything at once."""
        command = [self.path("simulated-ollama"), "--port", "0", "--first-token", first_token, "--interval", "0"]
        return Process("simulated-ollama", command, LOAD_CORE, ready=True)

    def load(self, port, streams, seconds, open_rate):
        command = [self.path("stream-load"), "--port", str(port), "--streams", str(streams),
                   "--seconds", str(seconds), "--open-rate", str(open_rate)]
        return Process("stream-load", command, LOAD_CORE)
