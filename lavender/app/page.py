"""Layout of the page: inputs, buttons, and the functions they call."""

import logging
from collections.abc import Callable
from importlib.resources import files
from typing import Any

import gradio as gr

from lavender.app import drawing
from lavender.app.about import Part
from lavender.app.clips import EXTENSIONS
from lavender.app.desk import MOST_LETTERS, MOST_OPTIONS, MOST_TEXTS, Desk
from lavender.runtime.errors import LavenderError

LOGGER = logging.getLogger("lavender.app")
STYLE = files("lavender.app").joinpath("page.css").read_text(encoding="utf-8")
FONTS = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "Noto Sans", "sans-serif"]  # of the user's machine
MONO = ["ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "monospace"]
LABELS = {"ask": "Ask", "caption": "Caption", "choose": "Choose", "compare": "Compare texts", "search": "Search"}
QUEUE: dict[str, Any] = {
    "concurrency_limit": 1,
    "concurrency_id": "model",
    "api_visibility": "private",
    "show_progress": "minimal",
}
WAITING = 20  # maximum requests in the queue
_SAY_WHICH = """element.addEventListener('click', (event) => {
    const button = event.target.closest('[data-number]');
    if (button) trigger('click', {number: Number(button.dataset.number)});
});"""
_UNFORESEEN = "This could not be done. The log of the page on its machine says why."


def theme() -> gr.themes.Base:
    """Colours and fonts; loads no font from the network."""
    return gr.themes.Default(primary_hue="violet", neutral_hue="slate", font=FONTS, font_mono=MONO)


def build(desk: Desk, rows: list[tuple[str, str]], parts: dict[str, Part], index_hint: str) -> gr.Blocks:
    """Builds the page.

    Args:
        rows: header lines, see `about.describe`. parts: parts supported by the checkpoint.
        index_hint: how to make an index, shown if there is none.
    """
    limits = desk.uploads.limits
    with gr.Blocks(title="LAVENDER", analytics_enabled=False, delete_cache=(60, 600)) as page:
        gr.HTML(f"<h1>LAVENDER</h1>{drawing.facts(rows)}", elem_id="lav-head")
        key = gr.State(None, time_to_live=3600, delete_callback=desk.kept.remove)
        with gr.Row(equal_height=False):
            with gr.Column(scale=2, min_width=300):
                upload = gr.File(label="A clip", file_types=EXTENSIONS, height=150, elem_id="lav-upload")
                size = f"{limits.upload:g} MB and {_time(limits.seconds)}"
                gr.HTML(drawing.note(f"A video of up to {size}. The file is removed once its frames are read."))
                examples = None
                if desk.examples:
                    examples = gr.HTML(desk.show_examples(), js_on_load=_SAY_WHICH, elem_id="lav-choose-example")
            with gr.Column(scale=5, min_width=400):
                waiting = drawing.note("Choose a clip: the frames that the model sees are shown here.")
                seen = gr.HTML(waiting, elem_id="lav-seen")
                with gr.Tabs():
                    results = _add_parts(desk, key, parts, index_hint)
        load = _loads(desk, desk.take_upload, len(results))
        # Passed on as sent by the browser: Gradio would make another file for each upload.
        upload.upload(load, [upload, key], [upload, key, seen, *results], preprocess=False, **QUEUE)
        if examples is not None:
            load_example = _loads(desk, desk.take_example, len(results))

            def chosen(earlier: str | None, event: gr.EventData) -> Any:
                return load_example(getattr(event, "number", None), earlier)

            examples.click(chosen, [key], [upload, key, seen, *results], **QUEUE)
    page.queue(max_size=WAITING, default_concurrency_limit=1, api_open=False)
    return page


def _add_parts(desk: Desk, key: gr.State, parts: dict[str, Part], index_hint: str) -> list[gr.HTML]:
    """Adds the tabs; returns the result boxes that belong to the chosen clip."""
    results = []
    with gr.Tab(LABELS["ask"], id="ask"):
        question = _box("Question", "what is the man doing")
        results.append(_part(parts["ask"], desk.ask, [key, question], "Answer", [question]))
    with gr.Tab(LABELS["caption"], id="caption"):
        results.append(_part(parts["caption"], desk.caption, [key], "Write a caption"))
    with gr.Tab(LABELS["choose"], id="choose"):
        question = _box("Question (may be empty)", "which animal is it")
        options = _box(f"Options, one a line, {MOST_OPTIONS} at most", "a dog\na cat", lines=4)
        results.append(_part(parts["choose"], desk.choose, [key, question, options], "Choose"))
    with gr.Tab(LABELS["compare"], id="compare"):
        texts = _box(f"Texts, one a line, {MOST_TEXTS} at most", "a dog runs\na man cooks", lines=4)
        results.append(_part(parts["compare"], desk.compare, [key, texts], "Compare"))
    with gr.Tab(LABELS["search"], id="search"):
        if not desk.indexes:
            gr.HTML(f"<p class='lav-note'>No index of a folder is open. To search:</p>{index_hint}")
            return results
        names = list(desk.indexes)
        name = gr.Dropdown(names, value=names[0], label="Folder", visible=len(names) > 1)
        text = _box("Text", "a dog runs")
        _part(parts["search"], desk.search, [name, text], "Search", [text])
    return results


def _time(seconds: float) -> str:
    return f"{seconds / 60:g} minutes" if seconds >= 120 and seconds % 60 == 0 else f"{seconds:g} seconds"


def _box(label: str, example: str, lines: int = 1) -> gr.Textbox:
    longest = MOST_LETTERS if lines == 1 else MOST_LETTERS * MOST_TEXTS
    return gr.Textbox(label=label, placeholder=example, lines=lines, max_lines=max(lines, 12), max_length=longest)


def _part(
    part: Part, do: Callable[..., str], inputs: list[Any], label: str, enter: list[gr.Textbox] | None = None
) -> gr.HTML:
    """Adds a button with its result below; the Enter key in a box of `enter` also presses it."""
    if part.note:
        gr.HTML(drawing.note(part.note))
    button = gr.Button(label, variant="primary", interactive=part.can, elem_id=f"lav-do-{part.name}")
    result = gr.HTML("", elem_id=f"lav-{part.name}-result", min_height=40)
    if part.can:
        for event in [button.click, *(box.submit for box in enter or [])]:
            event(_readable(do), inputs, [result], **QUEUE)
    return result


def _readable(do: Callable[..., str]) -> Callable[..., str]:
    """Wraps `do`: an error becomes a message in place of the result."""

    def done(*inputs: Any) -> str:
        try:
            return do(*inputs)
        except (LavenderError, OSError) as fault:
            return drawing.fault(fault)
        except Exception:
            LOGGER.exception("a request failed")
            return drawing.fault(_UNFORESEEN)

    return done


def _loads(desk: Desk, take: Callable[[Any], tuple[str, str]], results: int) -> Callable[..., tuple[Any, ...]]:
    """Handler for an upload or an example; also gets the key of the previous clip.

    It returns an empty upload box, the new key, the HTML of its frames, and empty results.
    """

    def load(what: Any, earlier: str | None) -> tuple[Any, ...]:
        desk.kept.remove(earlier)
        try:
            key, shown = take(what)
        except (LavenderError, OSError) as fault:
            key, shown = None, drawing.fault(fault)
        except Exception:
            LOGGER.exception("a clip could not be taken")
            key, shown = None, drawing.fault(_UNFORESEEN)
        return None, key, shown, *[""] * results

    return load
