"""A chat-completions server on loopback that answers what a test wrote for it, in order."""

import contextlib
import http.server
import json
import threading
from collections.abc import Callable, Iterator
from typing import Any


class ChatServer:
    """What it will answer, and what it was asked.

    Attributes:
        answers: (status, headers, body) of the next answers.
            A body that is a string is sent as it is, as a web page unless a header says otherwise.
        otherwise: maps a request's body to its answer when there are none.
        requests: bodies received, with the `Authorization` header under `"key"`.
        url: its address.
    """

    def __init__(self) -> None:
        self.answers: list[tuple[int, dict[str, str], Any]] = []
        self.requests: list[dict[str, Any]] = []
        self.otherwise: Callable[[dict[str, Any]], Any] = lambda body: reply("ok")
        self.url = ""


def reply(
    text: str | None, *, finish: str = "stop", prompt: int = 10, cached: int = 0, generated: int = 2
) -> tuple[int, dict[str, str], Any]:
    """A good answer."""
    usage = {
        "prompt_tokens": prompt,
        "completion_tokens": generated,
        "total_tokens": prompt + generated,
        "prompt_tokens_details": {"cached_tokens": cached},
    }
    message = {"role": "assistant", "content": text}
    choice = {"index": 0, "finish_reason": finish, "message": message}
    body = {"id": "x", "object": "chat.completion", "created": 0, "model": "m"}
    return 200, {}, {**body, "choices": [choice], "usage": usage}


def refusal(status: int, message: str, code: str = "", **headers: str) -> tuple[int, dict, Any]:
    """A bad answer."""
    return status, headers, {"error": {"message": message, "code": code, "type": "error"}}


@contextlib.contextmanager
def serve() -> Iterator[ChatServer]:
    """Run a server until the block ends."""
    state = ChatServer()

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            state.requests.append(asked | {"key": self.headers["Authorization"]})
            given = state.answers.pop(0) if state.answers else state.otherwise(asked)
            status, headers, answer = given
            text, kind = (answer, "text/html") if isinstance(answer, str) else (None, "")
            data = (json.dumps(answer) if text is None else text).encode()
            self.send_response(status)
            for name, value in {"Content-Type": kind or "application/json", **headers}.items():
                self.send_header(name.replace("_", "-"), value)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
