"""Which requests reach Gradio: few routes, and none that names a file of this machine but an upload."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from lavender.app.clips import Uploads
from lavender.app.decoding import Limits
from lavender.app.gate import Gate

JOIN, UPLOAD = "/gradio_api/queue/join", "/gradio_api/upload"


class World:
    """A gate in front of an application that remembers what reached it."""

    def __init__(self, folder: Path):
        folder.mkdir()
        self.uploads = Uploads(folder, Limits(upload=2))
        self.gate = Gate(self.application, self.uploads)
        self.body: bytes | None = None

    async def application(self, scope: Any, receive: Any, send: Any) -> None:
        self.body, more = b"", True
        while more:
            message = await receive()
            self.body += message["body"]
            more = message.get("more_body", False)
        await send({"type": "http.response.start", "status": 200, "headers": [(b"x", b"y")]})
        await send({"type": "http.response.body", "body": b""})

    def ask(
        self, method: str, path: str, *pieces: bytes, length: int | None = None, kind: str = "http"
    ) -> tuple[int, dict[bytes, bytes]]:
        """Status and headers of the answer; `body` is what the application got, None where it was not asked."""
        waiting = [{"type": "http.request", "body": piece, "more_body": True} for piece in pieces]
        waiting.append({"type": "http.request", "body": b"", "more_body": False})
        sent: list[dict[str, Any]] = []
        headers = [] if length is None else [(b"content-length", str(length).encode())]

        async def receive() -> dict[str, Any]:
            return waiting.pop(0)

        async def send(message: Any) -> None:
            sent.append(message)

        self.body = None
        asyncio.run(self.gate({"type": kind, "method": method, "path": path, "headers": headers}, receive, send))
        return sent[0]["status"], dict(sent[0]["headers"])


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path / "uploads")


@pytest.mark.parametrize(
    "path", ["/", "/config", "/theme.css", "/assets/index.js", "/gradio_api/queue/data", "/gradio_api/heartbeat/x"]
)
def test_the_page_itself(world: World, path: str):
    status, headers = world.ask("GET", path)
    assert status == 200
    assert b"default-src 'self'" in headers[b"content-security-policy"]
    assert headers[b"x"] == b"y"


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/gradio_api/file=/etc/passwd"),
        ("GET", "/file=/etc/passwd"),
        ("HEAD", "/gradio_api/file=a.mp4"),
        ("GET", "/gradio_api/proxy=http://127.0.0.1/"),
        ("GET", "/gradio_api/stream/a/b/1/playlist.m3u8"),
        ("GET", "/gradio_api/info"),
        ("POST", "/gradio_api/run/predict"),
        ("POST", "/gradio_api/call/ask"),
        ("POST", "/gradio_api/component_server"),
        ("POST", "/"),
        ("PUT", JOIN),
        ("DELETE", "/"),
        ("GET", JOIN),
        ("GET", "/docs"),
    ],
)
def test_all_else(world: World, method: str, path: str):
    assert world.ask(method, path)[0] == 404
    assert world.body is None


def test_a_request_that_is_none_of_http(world: World):
    assert world.ask("GET", "/", kind="websocket")[0] == 404
    assert world.body is None


def test_files_that_a_request_names(world: World, tmp_path: Path):
    (tmp_path / "uploads" / "a.mp4").write_bytes(b"x")
    (tmp_path / "secret.mp4").write_bytes(b"x")
    ours = {"path": str(tmp_path / "uploads" / "a.mp4"), "meta": {"_type": "gradio.FileData"}}
    body = json.dumps({"data": [ours, "a path", 7], "fn_index": 1}).encode()
    assert world.ask("POST", JOIN, body[:20], body[20:])[0] == 200
    assert world.body == body
    for path in (
        "/etc/passwd",
        str(tmp_path / "secret.mp4"),
        "https://example.org/a.mp4",
        "",
        None,
        [],
        {"path": ours},
    ):
        for data in ([{**ours, "path": path}], [[{"value": {**ours, "path": path}}]], {"a": {"path": path}}):
            assert world.ask("POST", JOIN, json.dumps({"data": data}).encode())[0] == 403
            assert world.body is None


def test_what_is_no_json(world: World):
    assert world.ask("POST", "/login", b"username=lavender&password=x")[0] == 200
    assert world.ask("POST", JOIN, b'{"path": "/etc/passwd", nonsense')[0] == 403
    assert world.ask("POST", JOIN, b"[" * 200_000)[0] == 403
    assert world.ask("POST", JOIN, b"\xff\xfe")[0] == 200  # Gradio refuses it


def test_sizes(world: World):
    assert world.ask("POST", JOIN, b"0" * 2**20, b"00")[0] == 403
    assert world.ask("POST", JOIN, length=2**20 + 1)[0] == 413
    assert world.ask("POST", UPLOAD, length=4 * 2**20)[0] == 413
    assert world.ask("POST", UPLOAD, b"abc", length=2 * 2**20 + 500)[0] == 200
    assert world.body == b"abc"
    assert world.ask("POST", UPLOAD, b"abc", b"def")[0] == 200
