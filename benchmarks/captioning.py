"""KV-cached caption decoding against uncached decoding on this machine: captions per second.

    python benchmarks/captioning.py

The plain way runs the whole sequence, video and words so far, for every word, all videos of a batch together; it is
given fused attention and the head at the one position that is asked. Same weights and threads, base size, random
weights, 4 frames, 20 tokens, none of which ends a caption. Both ways take turns, so that a busy machine is busy for
both. The video encoder, which both need once, is measured by itself.
"""

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import torch
from torch import Tensor

from benchmarks.timing import turns
from lavender.models.backbones.video_swin import VideoSwin
from lavender.models.bert_config import BertConfig
from lavender.models.encoders import Encoded
from lavender.models.generation import Decoding, SpecialTokens, generate
from lavender.models.lavender import Heads, Lavender
from lavender.runtime.device import autocast, choose_precision

FRAMES, PATCHES, LENGTH = 4, 49, 20
TOKENS = SpecialTokens(cls=101, sep=102, pad=0, mask=103)


def plain(model: Lavender, video: Encoded) -> Tensor:
    """Greedy tokens, (B, LENGTH), computed from the whole sequence for every token."""
    ids = torch.full((len(video.states), 1), TOKENS.cls, device=video.states.device)
    for position in range(1, LENGTH):
        asked = torch.cat([ids, torch.full_like(ids[:, :1], TOKENS.mask)], dim=1)
        text = model.encode_text(asked, torch.ones_like(asked))
        logits = model.fc_mtm(model.fuse(video, text, attention="seq2seq")[:, -1])
        words = logits.argmax(dim=-1, keepdim=True)
        ids = torch.cat([ids, words if position < LENGTH - 1 else torch.full_like(words, TOKENS.sep)], dim=1)
    return ids


def measure(
    model: Lavender, batch: int, rounds: int, beams: int, device: torch.device, precision: str
) -> tuple[float, float, float, float]:
    """Seconds per batch, alternating: cached, cached with beams, uncached; and the fraction of equal tokens."""
    torch.manual_seed(batch)
    states = torch.randn(batch, FRAMES * (1 + PATCHES), model.emb_task.shape[1], device=device)
    video = Encoded(states, torch.ones(states.shape[:2], dtype=torch.long, device=device))
    searching = Decoding(LENGTH, num_beams=beams)
    with torch.inference_mode(), autocast(precision, device):
        ours, theirs = generate(model, video, None, TOKENS).ids[:, 0], plain(model, video)  # also warms up both
        works = (
            lambda: generate(model, video, None, TOKENS),
            lambda: generate(model, video, None, TOKENS, searching),
            lambda: plain(model, video),
        )
        cached, searched, whole = turns(works, rounds, device)
    return cached, searched, whole, (ours == theirs).float().mean().item()


def compare(model: Lavender, batch: int, rounds: int, beams: int, device: torch.device, precision: str) -> None:
    """Alternates both and prints the best time of each."""
    cached, searched, whole, same = measure(model, batch, rounds, beams, device, precision)
    print(f"batch {batch:3}: {'whole sequence':18}{batch / whole:8.2f} captions/s")
    print(f"           {'cached':18}{batch / cached:8.2f} captions/s   {whole / cached:5.1f} × as fast")
    print(f"           {f'cached, {beams} beams':18}{batch / searched:8.2f} captions/s   {same:.1%} of words equal")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batches", type=int, nargs="+", default=[2, 16])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--beams", type=int, default=4)
    parser.add_argument("--precision", default="auto")
    options = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    precision = choose_precision(options.precision, device)
    torch.manual_seed(0)
    bert = BertConfig()
    model = Lavender(VideoSwin("base"), bert, bert, Heads()).eval().to(device)
    model.fc_mtm.predictions.decoder.bias.data[TOKENS.sep] = -1e4  # no caption ends early
    print(f"{precision}, {device}, {torch.get_num_threads()} threads, base size, {FRAMES} frames, {LENGTH} tokens")
    for batch in options.batches:
        compare(model, batch, options.rounds, options.beams, device, precision)
    clips = torch.zeros(2, FRAMES, 3, 224, 224, dtype=torch.uint8, device=device)
    with torch.inference_mode(), autocast(precision, device):
        (taken,) = turns([lambda: model.encode_video(clips)], options.rounds, device)
    print(f"video encoder: {len(clips) / taken:.2f} clips/s")


if __name__ == "__main__":
    main()
