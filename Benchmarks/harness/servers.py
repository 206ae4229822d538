"""Who plays which part: the gateway or nginx in its place, the fast backend, the simulated box."""

import json
import os
import shutil
import tempfile

from .processes import DESCRIPTORS, LOAD_CORE, SERVER_CORE, Process, free_port

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


class Nginx(Process):
    def __init__(self, name, server, core, **values):
        self._folder = tempfile.mkdtemp(prefix="bench-nginx-")
        os.chmod(self._folder, 0o755)
        port = free_port()
        path = os.path.join(self._folder, "nginx.conf")
        with open(path, "w") as file:
            file.write(_COMMON.format(
                folder=self._folder, connections=DESCRIPTORS, server=server.format(port=port, **values)))
        super().__init__(name, ["nginx", "-p", self._folder, "-e", "stderr", "-c", path], core, ready=port)

    def end(self):
        super().end()
        shutil.rmtree(self._folder, ignore_errors=True)


def fast_backend():
    return Nginx("nginx (backend)", _BACKEND, LOAD_CORE, answer=ANSWER)


def proxy(backend_port, streaming=False):
    """nginx as the proxy to compare with; `streaming` hands every chunk on at once, as the gateway does."""
    options = "proxy_buffering off; proxy_read_timeout 600s;" if streaming else ""
    return Nginx("nginx (proxy)", _PROXY, SERVER_CORE, backend=backend_port, options=options)


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

    def gateway(self, backend_port=9, streaming=False):
        if self.calibrate:
            return proxy(backend_port, streaming)
        return Process("ollama-gateway", self.gateway_command(backend_port), SERVER_CORE, ready=True)

    def gateway_command(self, backend_port):
        """No access lines (they begin at `info`), and each request goes to the backend."""
        return [self.path("ollama-gateway"), "--port", "0", "--backends", f"127.0.0.1:{backend_port}",
                "--log-level", "notice", "--cache-ttl", "0", "--rate-limit", "0"]

    def box(self, interval):
        """A simulated box that never ends a stream, never queues, and stamps each token with the time."""
        command = [self.path("simulated-ollama"), "--port", "0", "--stamp", "--interval", interval,
                   "--first-token", "50ms", "--tokens", "1000000", "--parallel", "100000", "--max-queue", "100000"]
        return Process("simulated-ollama", command, LOAD_CORE, ready=True)

    def load(self, port, streams, seconds, open_rate):
        command = [self.path("stream-load"), "--port", str(port), "--streams", str(streams),
                   "--seconds", str(seconds), "--open-rate", str(open_rate)]
        return Process("stream-load", command, LOAD_CORE)
