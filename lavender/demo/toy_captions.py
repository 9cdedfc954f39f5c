"""Made-up captioning folder in the released layout."""

import json
from pathlib import Path

from lavender.data.tsv import TSVWriter


def write_caption_split(folder: Path, split: str, frames: str, captions: dict[str, list[str]]) -> None:
    """Writes `<split>.yaml`, `.caption.tsv`, `.caption.linelist.tsv` and `.caption_coco_format.json`.

    Args:
        frames: the frame TSV, relative to the folder; captions: video id → its captions; the first is trained on.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with TSVWriter(folder / f"{split}.caption.tsv") as writer:
        for video, texts in captions.items():
            writer.write([video, json.dumps([{"caption": text} for text in texts])])
    (folder / f"{split}.caption.linelist.tsv").write_text("".join(f"{row}\t0\n" for row in range(len(captions))))
    pairs = [(video, text) for video, texts in captions.items() for text in texts]
    references = {
        "images": [{"id": video, "file_name": video} for video in captions],
        "annotations": [{"image_id": video, "caption": text, "id": n} for n, (video, text) in enumerate(pairs)],
    }
    (folder / f"{split}.caption_coco_format.json").write_text(json.dumps(references) + "\n", encoding="utf-8")
    names = {
        "img": frames,
        "caption": f"{split}.caption.tsv",
        "caption_linelist": f"{split}.caption.linelist.tsv",
        "caption_coco_format": f"{split}.caption_coco_format.json",
    }
    (folder / f"{split}.yaml").write_text("".join(f"{key}: {name}\n" for key, name in names.items()))
