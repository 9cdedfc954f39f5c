"""DiDeMo: the descriptions of a video's moments, together, as a paragraph to retrieve the video by."""

from lavender.data.ids import without_extension
from lavender.prepare.public.outputs import Item, Output, Retrieval
from lavender.prepare.public.source import Source
from lavender.prepare.rows import SPLITS
from lavender.runtime.errors import DataError
from lavender.runtime.quoting import shown


def read_didemo(source: Source, split: str) -> list[Output]:
    """`didemo-retrieval`: an item a video, its caption the list of its descriptions in the order of the file."""
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
