"""A box of every fault, as a process of its own: the last part of a request's target says what it does.

Prints its address, and serves until its standard input ends.
"""

import sys

from boxes import ScriptedBox


def misbehave(exchange):
    match exchange.asked.target.rsplit("/", 1)[1]:
        case "stream":
            exchange.stream([b'{"n":1}\n', b'{"n":2,"done":true}\n'])
        case "long":
            exchange.stream([b"x" * 4000 + b"\n"] * 20)
        case "endless":
            exchange.start_stream()
            while True:
                exchange.chunk(b'{"n":1}\n' * 500)
        case "hang":
            exchange.wait_for_departure()
        case "stall":
            exchange.start_stream()
            exchange.chunk(b'{"n":1}\n')
            exchange.wait_for_departure()
        case "cut":
            exchange.start_stream()
            exchange.chunk(b'{"n":1}\n{"n"')
            exchange.cut()
        case "short":
            exchange.head("Content-Length: 100")
            exchange.send(b"too short")
            exchange.cut()
        case "refuse":
            exchange.cut(reset=True)
        case "nonsense":
            exchange.send(b"this is not HTTP\r\n\r\n")
            exchange.cut()
        case "close":
            exchange.answer(b"{}", "Connection: close")
            exchange.cut()
        case "error":
            exchange.answer({"error": "busy"}, status="503 Service Unavailable")
        case "big":
            exchange.answer(bytes(100_000), content_type="application/octet-stream")
        case _:
            exchange.answer(b'{"ok":true}')
    # Nobody looks at them, and they would add up.
    box.asked.clear()


if __name__ == "__main__":
    box = ScriptedBox(misbehave)
    print(box.address, flush=True)
    sys.stdin.read()
