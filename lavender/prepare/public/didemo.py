"""DiDeMo: all descriptions of a video's moments form a paragraph for retrieval."""

from lavender.data.ids import without_extension
from lavender.prepare.public.outputs import Item, Output, Retrieval
from lavender.prepare.public.source import Source
from lavender.prepare.rows import SPLITS
from lavender.runtime.errors import DataError
from lavender.runtime.quoting import shown


def read_didemo(source: Source, split: str) -> list[Output]:
    """Reads `didemo-retrieval`: one item per video, with its descriptions in file order as caption."""
    items: list[Item] = []
    for name in SPLITS:
        path = source.find(f"{name}_data.json")
        rows = source.convert(source.entries(path), lambda row: (row.video("video"), row.text("description")))
        texts: dict[str, list[str]] = {}
        files: dict[str, str] = {}
        for file, text in rows:
            video = without_extension(file)
            if files.setdefault(video, file) != file:
                raise DataError(f"{path}: {shown(files[video])} and {shown(file)} would both be video {shown(video)}")
            texts.setdefault(video, []).append(text)
        items += [{"video": video, "caption": sentences, "split": name} for video, sentences in texts.items()]
    return [Retrieval("didemo-retrieval", items)]
