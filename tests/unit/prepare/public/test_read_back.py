"""What was converted is read by the data sets of the tasks."""

import base64
import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from lavender.config.schema import Config
from lavender.data.annotations import CaptionTable, read_json
from lavender.data.caption_folder import CaptionFolder
from lavender.data.items import ItemDataset, ItemFile, open_frames
from lavender.data.pretrain import PretrainDataset
from lavender.data.qamc import MultipleChoiceDataset, OptionNumberDataset
from lavender.data.qaoe import ClosedVocabularyDataset, FillInTheBlankDataset, OpenEndedDataset
from lavender.data.retmc import MatchingChoiceDataset, MatchingTextDataset
from lavender.data.retrieval import Gallery, RetrievalDataset
from lavender.data.samples import SampleKey
from lavender.data.sources.tsv import TSVSource
from lavender.data.tsv import TSVWriter
from lavender.text.tokens import TextTokenizer
from tests.unit.prepare.public.public_world import CLIPS, EVERY, Convert

VIDEOS = {
    "msrvtt": [f"video{n}" for n in (0, 1, 6513, 7010, 7011, 1201, 1301)],
    "msvd": ["-4ws_uPCj_5_15", "abc_1_2", "de_3_4"],
    "tgif": [f"tumblr_{split}{end}" for split in ("Train", "Test") for end in ("1_250", "2_400")],
    "lsmdc": CLIPS,
    "didemo": [f"{n}@N0_{split}_{end}" for split in ("train", "val", "test") for n, end in ((1, "a.1"), (2, "b"))],
}
KINDS: dict[str, list[type[ItemDataset]]] = {
    "msrvtt-qa": [OpenEndedDataset, ClosedVocabularyDataset],
    "msvd-qa": [OpenEndedDataset, ClosedVocabularyDataset],
    "tgif-frame": [OpenEndedDataset, ClosedVocabularyDataset],
    "lsmdc-fib": [FillInTheBlankDataset, ClosedVocabularyDataset],
    "tgif-action": [MultipleChoiceDataset, OptionNumberDataset],
    "tgif-transition": [MultipleChoiceDataset, OptionNumberDataset],
    "msrvtt-mc": [MatchingChoiceDataset, MatchingTextDataset],
    "lsmdc-mc": [MatchingChoiceDataset, MatchingTextDataset],
    "msrvtt": [RetrievalDataset],
    "msvd": [RetrievalDataset],
    "lsmdc": [RetrievalDataset],
    "didemo": [RetrievalDataset],
}
TYPES = {"msrvtt": "retrieval", "msvd": "retrieval", "lsmdc": "retrieval", "didemo": "retrieval"}
WORDS = "squirrel nut man opens door runs they two red a the what who is ? 0 1 2 3 4"


@pytest.fixture
def tokenizer(tmp_path: Path) -> TextTokenizer:
    """A vocabulary that has the answers of the made-up questions."""
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "true", "false", "option", "answer", ":", "."]
    (tmp_path / "bert").mkdir()
    (tmp_path / "bert" / "vocab.txt").write_text("\n".join([*special, *WORDS.split()]) + "\n")
    return TextTokenizer(tmp_path / "bert")


@pytest.fixture
def lay_frames(tmp_path: Path) -> Callable[[str, list[str]], Path]:
    buffer = io.BytesIO()
    Image.new("RGB", (64, 64), "red").save(buffer, "JPEG")
    image = base64.b64encode(buffer.getvalue()).decode()

    def lay(name: str, videos: list[str]) -> Path:
        (tmp_path / "made").mkdir(exist_ok=True)
        with TSVWriter(tmp_path / "made" / name) as writer:
            for video in videos:
                writer.write([video, image, image])
        return tmp_path / "made" / name

    return lay


def sample(dataset: Any, index: int) -> dict[str, Any]:
    found = dataset[SampleKey(0, index)]
    assert isinstance(found, dict), found
    return found


@pytest.mark.parametrize("name", KINDS)
def test_items(convert: Convert, lay_frames, config: Config, tokenizer: TextTokenizer, tmp_path: Path, name: str):
    dataset = name.split("-")[0]
    frames = lay_frames(f"img_{dataset}.tsv", VIDEOS[dataset])
    files = EVERY[name]
    if name == "msrvtt-qa":
        frames = lay_frames(f"img_{dataset}.tsv", ["video1", "video1201", "video1301"])
    assert convert(name, files, "--frames", str(frames)).code == 0
    kind = TYPES.get(name, "qaoe" if OpenEndedDataset in KINDS[name] or name == "lsmdc-fib" else "qamc")
    task = f"{name}-retrieval" if kind == "retrieval" else name
    changed = replace(
        config, type=kind, task=task, dataset=dataset, data_dir=str(tmp_path / "made"), size_vocab=10, size_txt=60
    )
    texts = ItemFile(changed)
    read = 0
    for split in ("train", "val", "test"):
        for data in [kind(changed, tokenizer, open_frames(changed), texts, split) for kind in KINDS[name]]:
            read += len(data)
            for index in range(len(data)):
                assert sample(data, index)["present"]
            if len(data):
                data.collate([sample(data, index) for index in range(len(data))])
    assert read
    if kind == "retrieval":
        gallery = Gallery(changed, open_frames(changed), texts, "test")
        assert len(gallery.captions) == len(texts.items("test"))


def test_answers_have_their_labels(
    convert: Convert, lay_frames, config: Config, tokenizer: TextTokenizer, tmp_path: Path
):
    lay_frames("img_lsmdc.tsv", CLIPS)
    convert("lsmdc-fib", EVERY["lsmdc-fib"])
    changed = replace(
        config, type="qaoe", task="lsmdc-fib", dataset="lsmdc", data_dir=str(tmp_path / "made"), size_vocab=908
    )
    texts, source = ItemFile(changed), open_frames(changed)
    words = FillInTheBlankDataset(changed, tokenizer, source, texts, "test")
    classes = ClosedVocabularyDataset(changed, tokenizer, source, texts, "test")
    assert (sample(words, 0)["answer_id"], sample(words, 0)["position"]) == (tokenizer.word_id("they"), 1)
    assert sample(classes, 0)["answer_id"] == -1, "they is no answer of the training questions"
    assert sample(ClosedVocabularyDataset(changed, tokenizer, source, texts, "train"), 1)["answer_id"] == 1


@pytest.mark.parametrize(("name", "folder"), [("msrvtt", "MSRVTT-v2"), ("msvd", "MSVD")])
def test_captioning_folders(convert: Convert, lay_frames, tmp_path: Path, name: str, folder: str):
    lay_frames(f"img_{name}.tsv", VIDEOS[name])
    convert(name, EVERY[name])
    for split in ("train", "val", "test"):
        path = tmp_path / "made" / folder / f"{split}_32frames.yaml"
        found = CaptionFolder(path, within=tmp_path / "made")
        rows = found.evaluation_rows().tolist()
        references = found.references(rows)
        assert all(references)
        samples = found.training_samples().tolist()
        assert [found.caption(*pair) for pair in samples] == [text for each in references for text in each]
        assert all(found.video(row).video_id == found.videos[row] for row in rows)


@pytest.mark.parametrize(("name", "corpus"), [("webvid", "webvid2.5m"), ("cc3m", "cc3m")])
def test_captions_for_pretraining(
    convert, lay_frames, config: Config, tokenizer: TextTokenizer, tmp_path: Path, name, corpus
):
    convert(name, EVERY[name])
    texts = read_json(tmp_path / "made" / f"txt_{corpus}.json")
    for split in ("train", "val"):
        frames = TSVSource(lay_frames(f"{corpus}_{split}.tsv", list(texts[split])), config.max_pixels)
        table = CaptionTable(texts[split], split)
        data = PretrainDataset(config, tokenizer, frames, table, training=False, size_frame=1, append_mask=True)
        assert [sample(data, n)["caption"] for n in range(len(data))] == [each[0] for each in texts[split].values()]
