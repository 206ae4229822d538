"""Clients that go on asking, and a listener to the events of the page."""

import itertools
import json
import threading
from contextlib import contextmanager

from caching import question
from wire import Connection, Ended, ask

numbers = itertools.count()


@contextmanager
def traffic(gateway, models=("llama3.2",), clients=3, repeats=2):
    """While it lasts, clients ask one question after the other; each is asked `repeats` times, so that all but the
    first are hits."""
    over = threading.Event()

    def go_on():
        while not over.is_set():
            number = next(numbers)
            text = f"question {number // repeats}"
            model = models[number // repeats % len(models)]
            path = "/api/embed" if "embed" in model else "/api/chat"
            ask(gateway.address, "POST", path, body=question(path, text, model=model))

    threads = [threading.Thread(target=go_on) for _ in range(clients)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        over.set()
        for thread in threads:
            thread.join()


class Listener:
    """Hears the events as they come; `told` are those heard so far, each a name and what came with it."""

    def __init__(self, gateway):
        self.connection = Connection(gateway.address)
        self.connection.request("GET", "/gateway/events")
        self.answer = self.connection.read_head()
        self.heard = bytearray()
        self.thread = threading.Thread(target=self._listen, daemon=True)
        self.thread.start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.connection.reset()
        self.thread.join()

    def _listen(self):
        try:
            for part in self.connection.parts:
                self.heard += part
        except (Ended, OSError):
            pass

    @property
    def told(self):
        events = bytes(self.heard).decode().split("\n\n")[:-1]
        lines = [dict(line.split(": ", 1) for line in event.split("\n")) for event in events]
        return [(line["event"], json.loads(line["data"])) for line in lines]

    def all(self, name):
        return [data for event, data in self.told if event == name]
