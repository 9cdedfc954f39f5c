"""Retrieval evaluation against straightforward code on this machine: pairs per second, FLOP/s, memory.

    python benchmarks/retrieval_eval.py
    python benchmarks/retrieval_eval.py --memory      # 1,000 × 1,000 pairs: some of its blocks, memory after each

The straightforward way is that of the released script: a DataLoader collates each pair's features, the fusion encoder
keeps its attention maps, and the head runs over all text positions. Same weights, type and threads; base size, random
weights, texts as long as MSRVTT's. Both ways take turns, so that a busy machine is busy for both.
"""

import argparse
import resource
import sys
from functools import cached_property
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from benchmarks.timing import seconds, turns
from lavender.config.schema import Config
from lavender.engine.gallery import TILE, Share, score_pairs
from lavender.engine.gallery_output import ScoreFile
from lavender.models.all_pairs import TextGroup
from lavender.models.backbones.video_swin import VideoSwin
from lavender.models.bert_config import BertConfig
from lavender.models.encoders import Encoded
from lavender.models.fusion import additive_mask
from lavender.models.lavender import Heads, Lavender
from lavender.models.transformers_import import transformers
from lavender.runtime.device import PRECISIONS, autocast, choose_precision
from lavender.tasks.retrieval import RetrievalTask

FRAMES, PATCHES, SIZE_TXT = 5, 49, 25
WORDS = (5, 20)  # tokens of a caption, including [CLS] and [SEP]: MSRVTT's have 12 on average
WIDTH, LAYERS = 768, 12


class Pairs(Dataset):
    """All pairs of texts and videos, with features."""

    def __init__(self, videos: Tensor, texts: Tensor, masks: Tensor):
        self.videos, self.texts, self.masks = videos, texts, masks

    def __len__(self) -> int:
        return len(self.texts) * len(self.videos)

    def __getitem__(self, number: int) -> tuple[Tensor, Tensor, Tensor]:
        text, video = divmod(number, len(self.videos))
        return self.videos[video], self.texts[text], self.masks[text]


class Bench:
    """Gallery of random features, with both ways of scoring it."""

    def __init__(self, n_videos: int, n_texts: int, device: torch.device, precision: str, output: str):
        torch.manual_seed(0)
        bert = BertConfig()
        self.device, self.precision, dtype = device, precision, PRECISIONS[precision]
        self.model = (
            Lavender(VideoSwin("micro"), bert, bert, Heads()).eval().to(device)
        )  # the video encoder is not used
        kit = str(ROOT / "tests" / "conformance" / "kit" / "bert_micro")  # only for its words "true" and "false"
        self.config = Config(txt_backbone=kit, fusion_encoder=kit, path_output=output, save_minutes=1e6)
        self.task = RetrievalTask(self.config)
        self.videos = torch.randn(n_videos, FRAMES * (1 + PATCHES), WIDTH, dtype=dtype, device=device)
        rng = np.random.default_rng(0)
        lengths = np.sort(rng.integers(*WORDS, n_texts, endpoint=True))
        self.masks = torch.from_numpy(np.arange(SIZE_TXT) < lengths[:, None]).long()
        self.masks = torch.cat([self.masks, torch.ones(n_texts, 1, dtype=torch.long)], dim=1)  # the appended [MASK]
        ids = torch.from_numpy(rng.integers(1000, 30000, (n_texts, SIZE_TXT + 1)))
        with torch.inference_mode():
            self.texts = self.model.encode_text(ids.to(device), self.masks.to(device)).states.to(dtype)
            self.groups = [self._group(np.flatnonzero(lengths == length)) for length in np.unique(lengths)]
        self.tokens = float(lengths.mean()) + 1

    def _group(self, rows: np.ndarray) -> TextGroup:
        real = self.masks[rows[0]].bool().to(self.device)
        states = self.texts[torch.from_numpy(rows).to(self.device)][:, real]
        return TextGroup(rows, Encoded(states, torch.ones(states.shape[:2], dtype=torch.long, device=self.device)))

    def ours(self, size_pairs: int = 0) -> np.ndarray:
        """Scores (texts, videos) computed like `eval_retrieval_tsv.py`."""
        return self.score(slice(None), self.groups, size_pairs)

    def score(self, videos: slice, groups: list[TextGroup], size_pairs: int = 0) -> np.ndarray:
        """Score matrix in which only the pairs of some videos and texts are filled."""
        features = self.videos[videos]
        mask = torch.ones(features.shape[:2], dtype=torch.long, device=self.device)
        columns = np.arange(len(self.videos))[videos]
        share = Share(columns, Encoded(features, mask), columns // TILE, 0)
        file = ScoreFile(self.config, "benchmark", (len(self.texts), len(self.videos)), columns)
        asked = np.concatenate([group.rows for group in groups])
        file.values[np.setdiff1d(np.arange(len(self.texts)), asked)] = 0
        self.model.trsfr.to(PRECISIONS[self.precision])
        with torch.inference_mode():
            score_pairs(self.task, self.model, share, groups, file, self.device, size_pairs)
        self.model.trsfr.float()
        return file.values

    @cached_property
    def eager(self) -> tuple[Any, list[Tensor]]:
        """The encoder of transformers with our weights, and the attention maps that it keeps."""
        bert = transformers().BertConfig(attn_implementation="eager")
        encoder = transformers().BertModel(bert).eval().encoder.to(self.device)
        encoder.load_state_dict(self.model.trsfr.state_dict())
        kept: list[Tensor] = []
        for layer in encoder.layer:
            layer.attention.self.register_forward_hook(lambda _, __, out: kept.append(out[1]))
        return encoder, kept

    def straightforward(self, size_batch: int) -> np.ndarray:
        """Scores computed like the released code; attention maps are kept until the batch is done."""
        encoder, kept = self.eager
        loader = DataLoader(Pairs(self.videos.cpu(), self.texts.cpu(), self.masks), size_batch, num_workers=0)
        words = [self.task.tokenizer.true_id, self.task.tokenizer.false_id]
        scores = []
        with torch.inference_mode(), autocast(self.precision, self.device):
            for batch in loader:
                video, text, mask = (part.to(self.device) for part in batch)
                visible = torch.cat([torch.ones(video.shape[:2], device=self.device), mask], dim=1)[:, None]
                joined = torch.cat([video, text], dim=1)
                states = encoder(joined, attention_mask=additive_mask(visible, joined.dtype)).last_hidden_state
                logits = self.model.fc_mtm(states[:, video.shape[1] :])[:, -1, words].float()
                scores.append((logits[:, 0] - logits[:, 1]).cpu())
                assert kept[0] is not None
                kept.clear()
        return torch.cat(scores).view(len(self.texts), len(self.videos)).numpy()

    def flop(self) -> float:
        """FLOPs of a pair in our computation: mainly 11 whole layers."""
        length = FRAMES * (1 + PATCHES) + self.tokens
        whole = 24 * WIDTH**2 * length + 4 * length**2 * WIDTH
        last = 4 * WIDTH**2 * length + 20 * WIDTH**2 + 4 * length * WIDTH
        return (LAYERS - 1) * whole + last + 2 * WIDTH**2

    def matrix_rate(self) -> float:
        """FLOP/s of the machine for the largest product of the fusion encoder, best of five."""
        rows = 8 * (FRAMES * (1 + PATCHES) + 16) if self.device.type == "cpu" else 65536
        dtype = PRECISIONS[self.precision]
        a, b = (torch.randn(*shape, device=self.device, dtype=dtype) for shape in ((rows, WIDTH), (WIDTH, 4 * WIDTH)))
        return max(2 * rows * WIDTH * 4 * WIDTH / seconds(lambda: a @ b, self.device) for _ in range(20))


def measure(bench: Bench, size_batch: int, rounds: int) -> tuple[float, float, float]:
    """Seconds of our code and of straightforward code, alternating, and the largest relative difference of scores."""
    expected = bench.straightforward(size_batch)  # also warms up both
    difference = np.abs(bench.ours() - expected).max() / np.abs(expected).max()
    ours, plain = turns((bench.ours, lambda: bench.straightforward(size_batch)), rounds, bench.device)
    return ours, plain, float(difference)


def compare(bench: Bench, size_batch: int, rounds: int) -> None:
    """Alternates both and prints the best time of each."""
    pairs = len(bench.texts) * len(bench.videos)
    rate = bench.matrix_rate()
    ours, plain, difference = measure(bench, size_batch, rounds)
    achieved, rate = bench.flop() * pairs / ours, max(rate, bench.matrix_rate())
    print(
        f"{pairs} pairs, {bench.precision}, {bench.device}, {torch.get_num_threads()} threads, batches of {size_batch}"
    )
    print(f"straightforward  {pairs / plain:8.2f} pairs/s")
    print(f"ours             {pairs / ours:8.2f} pairs/s   {plain / ours:.2f} × as fast")
    print(
        f"matrix products  {rate / 1e9:8.0f} GFLOP/s; ours achieves {achieved / 1e9:.0f}, {achieved / rate:.0%} of it"
    )
    print(f"scores differ by {difference:.1e} of the largest")


def memory(bench: Bench, tiles: int) -> None:
    """Prints peak memory of the process (and of the GPU) with the whole gallery loaded, after each tile of videos.

    On a GPU a tile is scored against all texts, on a CPU against two texts of each length.
    """
    few = [TextGroup(group.rows[:2], Encoded(*(part[:2] for part in group.texts))) for group in bench.groups]
    groups = bench.groups if bench.device.type == "cuda" else few
    for tile in range(tiles):
        videos = slice(TILE * tile, TILE * (tile + 1))
        taken = seconds(lambda videos=videos: bench.score(videos, groups), bench.device)
        host = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        gpu = torch.cuda.max_memory_allocated() / 2**30 if bench.device.type == "cuda" else 0.0
        pairs = TILE * sum(len(group.rows) for group in groups)
        print(
            f"tile {tile + 1}: {pairs} pairs in {taken:.0f} s; peak {host:.2f} GiB of memory, {gpu:.2f} GiB on the GPU"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=int, default=8)
    parser.add_argument("--texts", type=int, default=16)
    parser.add_argument(
        "--size_batch", type=int, default=100, help="of the straightforward way (the released script's)"
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--memory", action="store_true", help="1,000 × 1,000 pairs: the memory of some of its blocks")
    parser.add_argument("--tiles", type=int, default=3, help="with --memory: how many tiles of 8 videos")
    parser.add_argument("--output", default="_benchmark", help="folder of scratch files")
    options = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    precision = choose_precision(options.precision, device)
    if options.memory:
        memory(Bench(1000, 1000, device, precision, options.output), options.tiles)
    else:
        compare(
            Bench(options.videos, options.texts, device, precision, options.output), options.size_batch, options.rounds
        )


if __name__ == "__main__":
    main()
