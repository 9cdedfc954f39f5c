"""Predictions of a checkpoint on your own videos, equal to those of evaluation, for one clip or many.

predictor = Predictor.from_pretrained("_snapshot/_msrvtt-qa_20261128")
print(predictor.answer("phone.mp4", "what is the man doing"))
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar, cast, overload

import numpy as np
import torch

from lavender.config.schema import Config
from lavender.data.formats import format_of
from lavender.data.items import Item, ItemDataset, ItemFile
from lavender.data.samples import ClipDataset, Failure, SampleKey
from lavender.inference.clips import FrameRecorder, GivenVideos, Video, is_frames, open_video
from lavender.inference.given import SPLIT, GivenClips, GivenItems, check_count, texts_of
from lavender.inference.heads import find_task, trained_formats
from lavender.inference.opening import open_checkpoint
from lavender.inference.results import Answer, Caption, Choice, Found, Guess, Hit, Match
from lavender.models.all_pairs import blocks, encode_texts, unpadded
from lavender.models.encoders import Encoded
from lavender.models.lavender import Lavender
from lavender.models.pairs import select_rows
from lavender.runtime.device import PRECISIONS, autocast, choose_device, choose_precision, to_device
from lavender.runtime.errors import ConfigError, DataError, LavenderError
from lavender.tasks.base import Record, Task
from lavender.tasks.downstream import AnsweredTask, DownstreamTask
from lavender.tasks.retrieval import PairTask, RetrievalTask

AT_ONCE = 8  # batch size: clips, or pairs of a clip and a text
Videos = Sequence[Video]
One = TypeVar("One")


class Predictor:
    """Model with methods for captions, answers, choices, matches and search on videos.

    A video is the path of a file or of a folder of images, the bytes of a file, uint8 RGB frames as an array or a
    tensor, (T, H, W, 3) or (T, 3, H, W), or a list of PIL images or of frames (H, W, 3). A list of videos gives a list
    of results.

    Args:
        model: model in evaluation mode; config: its training options.
        device: `auto`, `cpu` or `cuda`.
        answers: closed vocabulary of a task-specific question-answering head, in class order.
    """

    def __init__(self, model: Lavender, config: Config, device: str = "auto", answers: Sequence[str] = ()):
        self.device = choose_device(device)
        self.precision = choose_precision(config.precision, self.device)
        self.model, self.config = model.to(self.device).eval(), config
        self._answers = list(answers)

    @classmethod
    def from_pretrained(
        cls, path: str | Path, device: str = "auto", answers: Sequence[str] = (), **options: Any
    ) -> "Predictor":
        """Loads a checkpoint.

        Args:
            path: a `.pt` file, a run's folder (its best epoch), an exported folder, or a name on the Hugging Face hub.
            options: override training options of the checkpoint, such as `txt_backbone` or `size_frame`.

        Raises:
            WeightsError: the checkpoint is missing or of another model. ConfigError: an option is unknown.
        """
        return cls(*open_checkpoint(path, **options), device, answers)

    # --- questions ----------------------------------------------------------------------------------------------------

    @overload
    def caption(self, video: Video, num_beams: int = 1, keep: int = 1, **options: Any) -> Caption: ...
    @overload
    def caption(self, video: Videos, num_beams: int = 1, keep: int = 1, **options: Any) -> Any: ...
    def caption(self, video: Video | Videos, num_beams: int = 1, keep: int = 1, **options: Any) -> Any:
        """Captions a video; returns a `Caption`, for several videos a list.

        Args:
            num_beams: beam size; keep: number of captions; options: such as `max_gen_length` or `do_sample`.

        Raises:
            DataError: the video cannot be read. WeightsError: the checkpoint cannot caption. ConfigError: no such
                option, or more words than the model has positions.
        """
        beams = max(num_beams, keep)
        task = self._task("captioning", num_beams=beams, num_keep_best=keep, **options)
        positions = self.model.enc_txt.emb_txt.position_embeddings.num_embeddings
        if (length := task.config.max_gen_length) > positions:
            raise ConfigError(f"max_gen_length is {length}, and the model has {positions} positions: lower it")
        source = self._source(task.config, _several(video))
        found = []
        for record, seen in zip(self._records(task, GivenClips(task.config, source)), source.videos, strict=True):
            guesses = [Guess(one["caption"], one["conf"]) for one in record["captions"]]
            found.append(Caption(seen.video_id, guesses, seen.taken))
        return _as_asked(found, video)

    def answer(self, video: Video | Videos, question: str | Sequence[str], k: int = 5) -> Any:
        """Returns the `k` most probable answers to a question as an `Answer`; for several videos or questions a list.

        Raises:
            DataError: the video cannot be read, or the question is empty. WeightsError: the checkpoint cannot answer.
        """
        videos, questions = _paired(video, question)
        task = cast(AnsweredTask, self._task("qaoe"))
        task.top = check_count(k)
        items = [{"video": str(number), "question": text} for number, text in enumerate(questions)]
        source = self._source(task.config, videos)
        content = self._vocabulary(task.config)
        found = []
        for record, seen in zip(self._asked(task, source, items, content), source.videos, strict=True):
            guesses = [Guess(one["answer"], one["probability"]) for one in record["top"]]
            found.append(Answer(seen.video_id, guesses, seen.taken, record["question"]))
        return _as_asked(found, video, question)

    def choose(self, video: Video | Videos, question: str, options: Sequence[str]) -> Any:
        """Returns the options of a question with their probabilities as a `Choice`; for several videos a list.

        With a checkpoint trained on matching, or an empty question, the video is matched with each option.

        Raises:
            DataError: the video cannot be read, or there are fewer than two options. WeightsError: the checkpoint
                cannot choose, or there are more options than its vocabulary has numbers.
        """
        options = texts_of(options, "option")
        if len(options) < 2:
            raise DataError(f"{len(options)} options are given: there must be two or more, in a list")
        (question,) = texts_of(question, "question", blank=True)
        formats = trained_formats(self.config)
        by_number = question.strip() and ("qamc" in formats or not {"retmc", "retrieval", "pretrain"} & set(formats))
        task = cast(AnsweredTask, self._task("qamc" if by_number else "retmc", size_option=len(options)))
        task.top = len(options)
        videos = _several(video)
        source = self._source(task.config, videos)
        texts = {f"option_{number}": option for number, option in enumerate(options)}
        items = [{"video": str(number), "question": question, **texts} for number in range(len(videos))]
        found = []
        for record, seen in zip(self._asked(task, source, items), source.videos, strict=True):
            guesses = [Guess(options[one["option"]], one["probability"]) for one in record["top"]]
            found.append(Choice(seen.video_id, guesses, seen.taken, question, record["prediction"]))
        return _as_asked(found, video)

    def match(self, video: Video | Videos, texts: str | Sequence[str]) -> Any:
        """Returns texts sorted by how well they match a video, as a `Match`; for several videos a list.

        The probability is that of "true" against "false"; for a task-specific head, a softmax over the given texts.

        Raises:
            DataError: the video cannot be read, or there are no texts.
        """
        texts = texts_of(texts, "text")
        task = cast(PairTask, self._task("retrieval", score_fn="probability"))
        source = self._source(task.config, _several(video))
        scores = torch.from_numpy(self._scores(task, self._encode(task, source), texts))  # (N texts, M videos)
        by_word = isinstance(task, RetrievalTask)
        probs = torch.sigmoid(scores) if by_word else (scores / task.config.temp).softmax(dim=0)
        found = []
        for column, seen in zip(probs.T, source.videos, strict=True):
            order = column.sort(descending=True, stable=True).indices.tolist()
            found.append(Match(seen.video_id, [Guess(texts[row], float(column[row])) for row in order], seen.taken))
        return _as_asked(found, video)

    def search(self, texts: str | Sequence[str], gallery: Videos, k: int = 5) -> Any:
        """Returns the `k` videos of a gallery that match a text best as a `Found`; for several texts a list.

        Every video is compared with every text; each video is decoded and encoded once.

        Raises:
            DataError: a video cannot be read, or the gallery is empty.
        """
        several = texts_of(texts, "text")
        task = cast(PairTask, self._task("retrieval", score_fn="probability"))
        source = self._source(task.config, _several(gallery))
        names = [video.video_id for video in source.videos]
        found = self._found(task, self._encode(task, source), names, several, k)
        return found[0] if isinstance(texts, str) else found

    def features(self, video: Video | Videos) -> Any:
        """Output states of the video encoder, float32 (V, D); for several videos a list."""
        form = trained_formats(self.config)[0]
        task = self._task(form if form != "pretrain" else "retrieval")
        states = self._encode(task, self._source(task.config, _several(video))).states
        return _as_asked([one.float().cpu().numpy() for one in states], video)

    def search_features(self, videos: Encoded, names: Sequence[str], texts: Sequence[str], k: int = 5) -> list[Found]:
        """Like `search`, in videos given by `features` (M, V, D), on any device, and their M names."""
        task = cast(PairTask, self._task("retrieval", score_fn="probability"))
        return self._found(task, videos, names, texts, k)

    def shape_of_features(self) -> tuple[int, int]:
        """Shape (V, D) of `features`."""
        size = self.config.size_img
        return self.features(np.zeros((1, size, size, 3), np.uint8)).shape

    # --- computation --------------------------------------------------------------------------------------------------

    def _task(self, form: str, **options: Any) -> Task:
        return find_task(self.model, self.config, form, **options)

    def _source(self, config: Config, videos: Videos) -> GivenVideos:
        if not videos:
            raise DataError("no video is given")
        count = max(config.stored_frames, config.size_frame)
        opened = (open_video(video, f"video {number}", count) for number, video in enumerate(videos))
        return GivenVideos([FrameRecorder(video) for video in opened])

    def _asked(self, task: Task, source: GivenVideos, items: list[Item], content: Any = None) -> list[Record]:
        """Predictions for items of these videos."""
        task = cast(DownstreamTask, task)
        kind = cast(type[ItemDataset], task.dataset_class)
        dataset = kind(task.config, task.tokenizer, source, GivenItems(items, content), SPLIT)
        task.datasets = {SPLIT: dataset}  # instead of data sets from files
        return self._records(task, dataset)

    def _records(self, task: Task, dataset: ClipDataset) -> list[Record]:
        return [record for batch in self._batches(dataset) for record in task.predict(self.model, batch)]

    def _batches(self, dataset: ClipDataset) -> Iterator[dict[str, Any]]:
        """Yields batches of samples on the device, as in evaluation."""
        with torch.inference_mode(), autocast(self.precision, self.device):
            for first in range(0, len(dataset), AT_ONCE):
                numbers = range(first, min(first + AT_ONCE, len(dataset)))
                batch = dataset.collate([dataset[SampleKey(0, number)] for number in numbers])
                if isinstance(batch, Failure):
                    raise DataError(batch.message)
                yield to_device(cast(dict[str, Any], batch), self.device)

    def _encode(self, task: Task, source: GivenVideos) -> Encoded:
        """Encodes every video of a source, (M, V, D)."""
        pieces = [
            self.model.encode_video(batch["img"], batch["present"]).states
            for batch in self._batches(GivenClips(task.config, source))
        ]
        return unpadded(torch.cat(pieces).to(PRECISIONS[self.precision]))

    def _scores(self, task: PairTask, videos: Encoded, texts: Sequence[str]) -> np.ndarray:
        """Matching scores of texts and videos (M, V, D): (N texts, M videos)."""
        scores = np.zeros((len(texts), len(videos.states)), np.float32)
        with torch.inference_mode(), autocast(self.precision, self.device):
            groups = encode_texts(self.model, map(task.encode_caption, texts), self.device, self.precision)
            for rows, columns, group, v, t in blocks(np.arange(len(videos.states)), groups, AT_ONCE):
                index = torch.from_numpy(np.stack([v, t])).to(self.device)
                some = select_rows(videos, index[0].to(videos.states.device))
                states = some.states.to(self.device, PRECISIONS[self.precision])
                pairs = Encoded(states, some.mask.to(self.device)), select_rows(group, index[1])
                scores[rows, columns] = task.pair_scores(self.model, *pairs).float().cpu().numpy()
        return scores

    def _found(
        self, task: PairTask, videos: Encoded, names: Sequence[str], texts: Sequence[str], k: int
    ) -> list[Found]:
        """The `k` videos (M, V, D) that match each text best."""
        found = []
        texts = texts_of(texts, "text")
        for text, row in zip(texts, self._scores(task, videos, texts), strict=True):
            order = np.argsort(-row, kind="stable")[: check_count(k)].tolist()
            probs = torch.sigmoid(torch.from_numpy(row)).tolist() if isinstance(task, RetrievalTask) else None
            found.append(Found(text, [Hit(n, names[n], float(row[n]), probs[n] if probs else None) for n in order]))
        return found

    def _vocabulary(self, config: Config) -> dict[str, Any]:
        """Names of a task-specific head's classes: the given answers, else the text file of the training."""
        if self._answers:
            return {"vocab": self._answers}
        trained = next((one for one in self.config.entries() or [self.config] if format_of(one) == "qaoe"), None)
        if trained is None:
            return {}
        try:
            content = ItemFile(trained).content
        except LavenderError:  # the file is not on this machine: classes are named by number
            return {}
        return {key: content[key] for key in ("ans2label", "vocab") if key in content}


def _several(video: Video | Videos) -> Videos:
    return list(cast(Videos, video)) if _is_list(video) else [cast(Video, video)]


def _is_list(given: Any) -> bool:
    """Whether the argument is a list of videos or questions; a list of frames is one video."""
    return isinstance(given, list | tuple) and not is_frames(given)


def _paired(video: Video | Videos, question: str | Sequence[str]) -> tuple[Videos, list[str]]:
    """Pairs videos with questions; a single one of either is used for all of the other."""
    videos, questions = list(_several(video)), texts_of(question, "question")
    if len(videos) == 1:
        videos *= len(questions)
    if len(questions) == 1:
        questions *= len(videos)
    if len(videos) != len(questions):
        raise DataError(f"{len(videos)} videos and {len(questions)} questions: give as many, or one of either")
    return videos, questions


def _as_asked(found: list[One], *asked: Any) -> Any:
    """Returns a single result instead of a list if no argument was a list."""
    return found if any(map(_is_list, asked)) else found[0]
