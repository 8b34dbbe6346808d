"""A chat-completions server that repeats a recorded expert, and remembers what it was asked."""

import contextlib
import http.server
import json
import math
import pathlib
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

from eef_jax.storage.trajectories import read_trajectories

Key = tuple[tuple[str, ...], str]  # what the expert said so far, and what it reads


class Recorded:
    """The answers of an expert's trajectories.

    Attributes:
        url: the server's address.
        asked: for each conversation the moments at which it came.
    """

    def __init__(self, folder: pathlib.Path, *, delay_s: float):
        self.url = ""
        self.asked: dict[Key, list[float]] = {}
        self._delay_s = delay_s
        self._answers: dict[Key, str] = {}
        self._lock = threading.Lock()
        for trajectory in read_trajectories(folder):
            said: tuple[str, ...] = ()
            for step in trajectory.steps:
                self._answers[said, step.observation] = step.message
                said = (*said, step.message)

    def answer(self, messages: Sequence[dict[str, str]]) -> str:
        """The recorded message that follows a conversation."""
        key = self._key(messages)
        with self._lock:
            self.asked.setdefault(key, []).append(time.monotonic())
        time.sleep(self._delay_s)
        return self._answers.get(key, "hello")  # to the check of a start

    def repeated(self, kills: Sequence[float], *, excused_s: float = 1.0) -> int:
        """Answers that were asked for again, although asked for well before the next kill."""
        return sum(
            min((kill for kill in kills if kill > first), default=math.inf) - first > excused_s
            for key, moments in self.asked.items()
            if key in self._answers
            for first in moments[:-1]
        )

    def _key(self, messages: Sequence[dict[str, str]]) -> Key:
        said = tuple(m["content"] for m in messages if m["role"] == "assistant")
        read = messages[-1]["content"]
        if not said:  # the environment's instructions stand in front of the first message
            openings = (text for before, text in self._answers if not before)
            read = next((text for text in openings if read.endswith(text)), read)
        return said, read


@contextlib.contextmanager
def serve(expert: Recorded) -> Iterator[str]:
    """Serve a recorded expert; the address up to /v1."""

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            message = {"role": "assistant", "content": expert.answer(asked["messages"])}
            choice = {"index": 0, "finish_reason": "stop", "message": message}
            usage = {"prompt_tokens": 10, "completion_tokens": 2, "total_tokens": 12}
            head = {"id": "x", "object": "chat.completion", "created": 0, "model": "recorded"}
            data = json.dumps({**head, "choices": [choice], "usage": usage}).encode()
            with contextlib.suppress(ConnectionError):  # the asking process was killed
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

        def log_message(self, *_: Any) -> None:
            pass

    class Server(http.server.ThreadingHTTPServer):
        def handle_error(self, *_: object) -> None:
            """Say nothing: the asking process was killed."""

    server = Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/v1"
    finally:
        server.shutdown()
        server.server_close()
