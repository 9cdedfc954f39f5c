"""Request filter of the server: only a few of Gradio's routes, and no request that names a file of this machine."""

import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from lavender.app.clips import MEGABYTE, Uploads

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Message, Receive, Send], Awaitable[None]]

# The page, its scripts and styles, and the queue. None of Gradio's routes that serve files or fetch URLs.
_READ = ("/assets/", "/static/", "/theme.css", "/favicon.ico", "/manifest.json", "/config", "/logout")
_READ_API = ("queue/data", "heartbeat/", "upload_progress", "startup-events", "app_id", "theme.css")
_READ_API_LOGIN = ("user", "login_check", "token")
_API = "/gradio_api/"
_WRITE = {"/login", "/login/", *(f"{_API}{name}" for name in ("queue/join", "upload", "cancel", "reset"))}
_LARGEST_REQUEST = 1  # maximum megabytes, except for uploads

_HEADERS = {
    # The browser must not load anything from other hosts. Gradio compiles its templates: unsafe-eval.
    "content-security-policy": "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; frame-ancestors 'self'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
}


class Gate:
    """ASGI middleware in front of Gradio.

    Args:
        application: the wrapped application; uploads: the only files that a request may name.
    """

    def __init__(self, application: Application, uploads: Uploads):
        self._application, self._uploads = application, uploads

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._application(scope, receive, send)
            return
        if scope["type"] != "http" or not _is_served(scope["method"], scope["path"]):
            await _refuse(send, 404, "there is no such page")
            return
        if scope["method"] == "POST":
            is_upload = scope["path"] == f"{_API}upload"
            # The parts of a form have headers besides the file.
            most = (self._uploads.limits.upload + 1 if is_upload else _LARGEST_REQUEST) * MEGABYTE
            if _announced(scope) > most:
                await _refuse(send, 413, "this is larger than allowed")
                return
            if not is_upload:
                body = await _read(receive, most)
                if body is None or not self._names_no_other_file(body):
                    await _refuse(send, 403, "a request may name no file but an upload of this page")
                    return
                receive = _again(body, receive)
        await self._application(scope, receive, _with_headers(send))

    def _names_no_other_file(self, body: bytes) -> bool:
        """Whether the body names no file but uploads: Gradio would read, or fetch by URL, any object with a path."""
        try:
            content = json.loads(body or b"null")
        except (ValueError, RecursionError):
            return b'"path"' not in body and len(body) < 10_000  # the login form
        waiting = [content]
        while waiting:
            value = waiting.pop()
            if isinstance(value, dict):
                if "path" in value and not self._uploads.holds(value["path"]):
                    return False
                waiting.extend(value.values())
            elif isinstance(value, list):
                waiting.extend(value)
        return True


def _is_served(method: str, path: str) -> bool:
    if method == "POST":
        return path in _WRITE
    if method not in ("GET", "HEAD"):
        return False
    if path == "/" or path.startswith(_READ):
        return True
    if not path.startswith(_API):
        return path.strip("/") in _READ_API_LOGIN
    rest = path.removeprefix(_API)
    return rest.startswith(_READ_API) or rest.strip("/") in _READ_API_LOGIN


def _announced(scope: Message) -> int:
    lengths = [value for name, value in scope["headers"] if name == b"content-length"]
    return int(lengths[0]) if lengths and lengths[0].isdigit() else 0


async def _read(receive: Receive, most: float) -> bytes | None:
    """Body of a request; None if it is too large."""
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if len(body) > most:
            return None
        if not message.get("more_body"):
            return body


def _again(body: bytes, receive: Receive) -> Receive:
    """Receive function that returns a body that was already read."""
    waiting: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def give() -> Message:
        return waiting.pop() if waiting else await receive()

    return give


def _with_headers(send: Send) -> Send:
    async def give(message: Message) -> None:
        if message["type"] == "http.response.start":
            more = [(name.encode(), value.encode()) for name, value in _HEADERS.items()]
            message = {**message, "headers": [*message.get("headers", []), *more]}
        await send(message)

    return give


async def _refuse(send: Send, status: int, why: str) -> None:
    headers = [(b"content-type", b"text/plain; charset=utf-8")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": why.encode()})
