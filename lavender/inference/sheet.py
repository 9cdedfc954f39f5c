"""Picture of search results: below each text its hits, best first, with a few frames of each."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps

from lavender.inference.clips import open_video
from lavender.inference.results import Found, Hit
from lavender.runtime.errors import DataError

FRAMES = 3  # frames per hit
HITS = 5  # hits per line
WIDTH, HEIGHT, LABEL, TITLE, GAP = 120, 90, 18, 26, 8  # sizes in pixels: frame, lines of text, gap between hits
TILE = FRAMES * WIDTH
PAPER, EMPTY, BLACK, GREY = "white", (225, 225, 225), "black", (90, 90, 90)
_LONGEST_NAME = 255  # maximum characters whose width is measured


def contact_sheet(found: Sequence[Found]) -> Image.Image:
    """Draws the hits of each text, five per line: a few frames, and rank, probability and file name below them.

    A hit whose file is missing or broken is an empty tile with its name. Each file is read only once.
    """
    columns = min(HITS, max((len(one.hits) for one in found), default=1))
    lines = [max(1, -(-len(one.hits) // HITS)) for one in found]
    tile = HEIGHT + LABEL + GAP
    sheet = Image.new("RGB", (GAP + max(columns, 1) * (TILE + GAP), sum(TITLE + n * tile for n in lines) or 1), PAPER)
    draw = ImageDraw.Draw(sheet)
    strips: dict[str, Image.Image | None] = {}
    top = 0
    for one, count in zip(found, lines, strict=True):
        _write(draw, (GAP, top + 4), one.text, sheet.width - 2 * GAP, 16, BLACK, from_its_end=False)
        for rank, hit in enumerate(one.hits):
            if hit.video not in strips:
                strips[hit.video] = _strip(hit.video)
            place = GAP + rank % HITS * (TILE + GAP), top + TITLE + rank // HITS * tile
            _draw_hit(sheet, draw, place, rank + 1, hit, strips[hit.video])
        top += TITLE + count * tile
    return sheet


def _draw_hit(
    sheet: Image.Image,
    draw: ImageDraw.ImageDraw,
    place: tuple[int, int],
    rank: int,
    hit: Hit,
    strip: Image.Image | None,
) -> None:
    left, top = place
    if strip is None:
        draw.rectangle((left, top, left + TILE - 1, top + HEIGHT - 1), fill=EMPTY)
        _write(draw, (left + 6, top + HEIGHT // 2 - 8), "it cannot be read any more", TILE - 12, 12, GREY)
    else:
        sheet.paste(strip, place)
    score = f"{hit.score:.3f}" if hit.probability is None else f"{hit.probability:.1%}"
    label = f"{rank}.  {score}  "
    room = draw.textlength(label, _font(12))
    draw.text((left, top + HEIGHT + 2), label, BLACK, _font(12))
    _write(draw, (left + int(room), top + HEIGHT + 2), hit.video, TILE - int(room), 12, GREY)


def _strip(video: str) -> Image.Image | None:
    """A few frames of a file side by side; None if it cannot be read."""
    try:
        opened = open_video(video, video, FRAMES)
        numbers = np.linspace(0, len(opened) - 1, FRAMES).round().astype(int).tolist()
        frames = opened.frames(numbers)
    except (DataError, OSError):
        return None
    strip = Image.new("RGB", (TILE, HEIGHT))
    for number, frame in enumerate(frames):
        strip.paste(ImageOps.pad(Image.fromarray(frame), (WIDTH, HEIGHT)), (number * WIDTH, 0))
    return strip


def _write(
    draw: ImageDraw.ImageDraw,
    place: tuple[int, int],
    text: str,
    width: int,
    size: int,
    colour: str | tuple[int, int, int],
    from_its_end: bool = True,
) -> None:
    """Writes one line of text, cut to a width: a path keeps its end, a sentence its beginning."""
    font = _font(size)
    text = " ".join(text.split())
    whole, text = text, text[-_LONGEST_NAME:] if from_its_end else text[:_LONGEST_NAME]
    while len(text) > 1 and draw.textlength(text if text == whole else text + "…", font) > width:
        text = text[1:] if from_its_end else text[:-1]
    if text != whole:
        text = "…" + text if from_its_end else text + "…"
    draw.text(place, text, colour, font)


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)
