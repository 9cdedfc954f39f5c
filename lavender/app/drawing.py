"""HTML of clips and predictions. All text from users and files is escaped here."""

import html
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from lavender.data.pictures import picture_address
from lavender.inference.results import Guess

_SIDE = 320  # longer side of a picture in pixels


@dataclass(frozen=True)
class Tile:
    """Clip in a row of clips: its frame (None if unreadable) and its label."""

    frame: np.ndarray | None
    title: str
    note: str = ""


def picture(frame: np.ndarray, what: str) -> str:
    """Embeds a frame (H, W, 3), uint8 RGB, in the page without storing a file."""
    return f'<img alt="{html.escape(what)}" src="{picture_address(frame, _SIDE, _SIDE)}">'


def frames(name: str, seen: Sequence[np.ndarray]) -> str:
    """Frames of a clip side by side."""
    pictures = "".join(f"<figure>{picture(frame, f'frame {n}')}</figure>" for n, frame in enumerate(seen, 1))
    many = f"the {len(seen)} frames" if len(seen) != 1 else "the one frame"
    return f"<p><b>{html.escape(name)}</b>: {many} that the model sees</p><div class='lav-frames'>{pictures}</div>"


def bars(guesses: Iterable[Guess]) -> str:
    """Texts with probability bars."""
    rows = "".join(
        f"<div><span>{html.escape(one.text)}</span><div><i style='width:{100 * one.probability:.1f}%'></i></div>"
        f"<span>{one.probability:.1%}</span></div>"
        for one in guesses
    )
    return f"<div class='lav-bars'>{rows}</div>"


def sentence(text: str, probability: float) -> str:
    """Caption with its probability."""
    return f"<p class='lav-caption'>{html.escape(text)}</p>" + note(f"mean probability of its words: {probability:.1%}")


def tiles(shown: Iterable[Tile]) -> str:
    """Clips side by side."""
    return f"<div class='lav-tiles'>{''.join(map(_tile, shown))}</div>"


def buttons(shown: Iterable[Tile]) -> str:
    """Selectable clips; a click gives the number, from 0."""
    rows = "".join(
        f"<button type='button' data-number='{number}' title='{html.escape(tile.title)}'>{_tile(tile)}</button>"
        for number, tile in enumerate(shown)
    )
    return f"<div class='lav-tiles lav-examples'>{rows}</div>"


def _tile(tile: Tile) -> str:
    inside = "<div class='lav-gone'>no picture</div>" if tile.frame is None else picture(tile.frame, tile.title)
    note = f"<span>{html.escape(tile.note)}</span>" if tile.note else ""
    return f"<figure>{inside}<figcaption>{html.escape(tile.title)}{note}</figcaption></figure>"


def fault(text: object) -> str:
    """Error message."""
    return f"<p class='lav-fault' role='alert'>{html.escape(str(text))}</p>"


def note(text: str) -> str:
    """Remark."""
    return f"<p class='lav-note'>{html.escape(text)}</p>"


def facts(rows: Iterable[tuple[str, str]]) -> str:
    """Names and values, one pair per line."""
    lines = "".join(f"<dt>{html.escape(name)}</dt><dd>{html.escape(value)}</dd>" for name, value in rows)
    return f"<dl class='lav-facts'>{lines}</dl>"
