"""Start of the page: model, decoder, upload folder and server."""

import html
import os
import signal
import tempfile
import threading
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from pathlib import Path

# Set before the import of Gradio, which otherwise checks for new versions and reports each start to its makers.
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
os.environ["GRADIO_SHARE"] = "False"

from starlette.middleware import Middleware

from lavender.app import drawing
from lavender.app.about import describe, parts_of
from lavender.app.clips import MEGABYTE, Uploads
from lavender.app.decoding import Decoder, Limits
from lavender.app.desk import Desk
from lavender.app.gate import Gate
from lavender.inference.index import GalleryIndex
from lavender.inference.predictor import Predictor
from lavender.runtime.errors import ConfigError

USER = "lavender"
_HERE = ("127.0.0.1", "localhost", "::1")


def serve(
    checkpoint: str,
    device: str,
    options: Mapping[str, str],
    limits: Limits,
    *,
    examples: Sequence[Path],
    indexes: Sequence[Path],
    host: str,
    port: int | None,
    password: str | None,
    index_command: str,
) -> None:
    """Runs the server of the page until Ctrl-C.

    Raises:
        LavenderError: the checkpoint, an index or the port cannot be used.
    """
    with ExitStack() as stack:
        predictor = Predictor.from_pretrained(checkpoint, device, **options)
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="lavender-page-")))  # private to this user
        os.environ["GRADIO_TEMP_DIR"] = str(folder)  # read when Gradio is imported, and at each upload
        uploads, decoder = Uploads(folder, limits), stack.enter_context(closing(Decoder(limits)))
        opened = {str(path): GalleryIndex(path) for path in indexes}
        desk = Desk(predictor, decoder, uploads, examples, opened)
        parts = parts_of(predictor)

        from lavender.app import page  # Gradio

        rows = describe(predictor, checkpoint, parts.values())
        blocks = page.build(desk, rows, parts, _command(index_command))
        stack.callback(blocks.close, verbose=False)
        _without_a_proxy()
        try:
            blocks.launch(
                server_name=host,
                server_port=port,
                share=False,
                inbrowser=False,
                quiet=True,
                prevent_thread_lock=True,
                auth=(USER, password) if password else None,
                max_file_size=int(limits.upload * MEGABYTE),
                allowed_paths=[],
                ssr_mode=False,
                mcp_server=False,
                enable_monitoring=False,
                run_history=False,
                footer_links=[],
                theme=page.theme(),
                css=page.STYLE,
                app_kwargs={"middleware": [Middleware(Gate, uploads=uploads)], "docs_url": None, "redoc_url": None},
            )
        except OSError:
            raise ConfigError(
                f"the page cannot listen on {host}, port {port or 'from 7860 on'}: the port is in use, or this machine "
                "has no such address; give another --port or --host"
            ) from None
        print(f"{blocks.local_url}   (Ctrl-C stops the page)", flush=True)
        if host not in _HERE and not password:
            print("Everybody who can reach this machine can use the page: see --password_file", flush=True)
        _wait()


def _command(command: str) -> str:
    return f"<div class='lav-command'>{html.escape(command)}</div>" + drawing.note(
        "Then start the page with --index clips.index"
    )


def _wait() -> None:
    """Waits for Ctrl-C or SIGTERM; in both cases the uploads are removed afterwards."""

    def end(*_: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, end)
    threading.Event().wait()


def _without_a_proxy() -> None:
    """Bypasses proxies for this host: Gradio sends itself a request to check that it runs."""
    for name in ("no_proxy", "NO_PROXY"):
        os.environ[name] = ",".join(filter(None, [os.environ.get(name), *_HERE[:2]]))
