"""Caption generation: greedy decoding, sampling, or beam search, with a KV cache."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from lavender.models.decoder import CachedDecoder
from lavender.models.encoders import Encoded
from lavender.models.lavender import Lavender


class Captions(NamedTuple):
    """Captions, best first: token ids with `[CLS]`, `[SEP]` and padding, (B, N, max_length), and scores (B, N).

    A score is the mean log-probability of the predicted tokens; the confidence is its exponential.
    """

    ids: Tensor
    scores: Tensor


class SpecialTokens(NamedTuple):
    """Ids of the special tokens used in decoding."""

    cls: int
    sep: int
    pad: int
    mask: int


@dataclass(frozen=True)
class Decoding:
    """Decoding options.

    Args:
        max_length: maximum tokens of a caption, including `[CLS]` and `[SEP]`.
        num_beams: 1 is greedy decoding or sampling; more is beam search for the caption of the highest sum of
            log-probabilities over length ** `length_penalty`, of which `num_keep_best` are kept.
        do_sample: sample tokens at `temperature` from the `top_k` most probable (0: all), and among these from the
            smallest set with total probability `top_p`.
        repetition_penalty: divides the logits of tokens already generated (multiplies those below 0), as in CTRL.
    """

    max_length: int = 20
    num_beams: int = 1
    num_keep_best: int = 1
    length_penalty: float = 1.0
    do_sample: bool = False
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    repetition_penalty: float = 1.0


GREEDY = Decoding()


def generate(
    model: Lavender,
    video: Encoded,
    prefix: Encoded | None,
    tokens: SpecialTokens,
    decoding: Decoding = GREEDY,
    draws: Tensor | None = None,
) -> Captions:
    """Generates captions of B videos, until all have ended with `[SEP]`.

    In an unfinished caption `[SEP]` replaces the last token; its score is that of the predicted tokens.

    Args:
        video: (B, V, D) and mask; prefix: prompt or task token (1, P, D).
        draws: with `do_sample`, uniform random numbers in [0, 1), (B, max_length), one per position, so that a caption
            does not depend on its batch.
    """
    decoder = CachedDecoder(model, video, prefix, decoding.max_length, decoding.num_beams, tokens.mask)
    search = _beam_search if decoding.num_beams > 1 else _one_by_one
    return search(decoder, tokens, decoding, draws)


def _start(decoder: CachedDecoder, tokens: SpecialTokens, length: int) -> Tensor:
    ids = torch.full((decoder.rows, length), tokens.pad, device=decoder.device)
    ids[:, 0] = tokens.cls
    return ids


def _one_by_one(
    decoder: CachedDecoder, tokens: SpecialTokens, decoding: Decoding, draws: Tensor | None = None
) -> Captions:
    """Greedy decoding or sampling."""
    ids = _start(decoder, tokens, decoding.max_length)
    running = torch.ones(decoder.rows, dtype=torch.bool, device=decoder.device)
    total = torch.zeros(decoder.rows, device=decoder.device)
    count = torch.zeros_like(total)
    for position in range(1, decoding.max_length):
        logits = decoder.logits(ids, position)
        penalised = penalise_repetition(logits, ids[:, :position], decoding.repetition_penalty)
        if decoding.do_sample:
            assert draws is not None, "sampling needs numbers to draw with"
            probs = word_probs(penalised, decoding.temperature, decoding.top_k, decoding.top_p)
            words = draw(probs, draws[:, position])
        else:
            words = penalised.argmax(dim=-1)
        log_probs = logits.log_softmax(-1).gather(1, words[:, None]).squeeze(1)
        total, count = total + log_probs * running, count + running
        ids[:, position] = torch.where(running, words, tokens.pad)
        running = running & (words != tokens.sep)
        if not running.any():
            break
    ids[running, decoding.max_length - 1] = tokens.sep
    return Captions(ids[:, None], (total / count)[:, None])


def penalise_repetition(logits: Tensor, generated_ids: Tensor, penalty: float) -> Tensor:
    """Applies the repetition penalty to the logits (R, V) of the tokens `generated_ids` (R, n)."""
    if penalty == 1:
        return logits
    chosen = logits.gather(1, generated_ids)
    return logits.scatter(1, generated_ids, torch.where(chosen > 0, chosen / penalty, chosen * penalty))


def word_probs(logits: Tensor, temperature: float, top_k: int, top_p: float) -> Tensor:
    """Logits (R, V) → sampling probabilities (R, V); 0 outside of `top_k` and `top_p`."""
    probs = (logits.double() / temperature).softmax(-1)
    if top_k and top_k < probs.shape[-1]:
        kth = probs.topk(top_k).values[:, -1:]
        probs = torch.where(probs >= kth, probs, 0.0)
    if top_p < 1:
        probs = probs / probs.sum(dim=-1, keepdim=True)
        ordered, order = probs.sort(dim=-1, descending=True, stable=True)
        before = (
            ordered.cumsum(-1) - ordered
        )  # total probability of more probable tokens: a token is kept while it is below `top_p`
        probs = torch.zeros_like(probs).scatter(1, order, torch.where(before < top_p, ordered, 0.0))
    return probs / probs.sum(dim=-1, keepdim=True)


def draw(probs: Tensor, numbers: Tensor) -> Tensor:
    """Tokens (R,) at which the cumulative probabilities (R, V) exceed uniform random numbers (R,) in [0, 1)."""
    below = probs.cumsum(-1) <= numbers[:, None]
    last = probs.shape[-1] - 1 - (probs.flip(-1) > 0).int().argmax(dim=-1)  # the limit against rounding errors
    return below.sum(dim=-1).minimum(last)


# --- beam search ------------------------------------------------------------------------------------------------------


class _Finished:
    """The N best finished captions of each of B videos."""

    def __init__(self, batch: int, kept: int, tokens: SpecialTokens, length: int, device: torch.device):
        self.ids = torch.full((batch, kept, length), tokens.pad, device=device)
        self.ranks = torch.full((batch, kept), -torch.inf, device=device)  # ranking scores
        self.scores = torch.zeros(batch, kept, device=device)

    def add(self, ids: Tensor, ranks: Tensor, scores: Tensor) -> None:
        """Adds candidates (B, C, length) with ranking scores (−∞: not a candidate) and confidence scores."""
        kept = self.ranks.shape[1]
        self.ranks, order = torch.cat([self.ranks, ranks], dim=1).topk(kept, dim=1)
        self.scores = torch.cat([self.scores, scores], dim=1).gather(1, order)
        self.ids = torch.cat([self.ids, ids], dim=1).gather(1, order[..., None].expand(-1, -1, ids.shape[-1]))


def _beam_search(decoder: CachedDecoder, tokens: SpecialTokens, decoding: Decoding, _: Tensor | None) -> Captions:
    """Beam search with K beams; ends when no running beam can improve on the finished captions."""
    beams, length, device = decoding.num_beams, decoding.max_length, decoder.device
    batch, last = decoder.rows // beams, length - 1
    ids = _start(decoder, tokens, length).view(batch, beams, length)
    ranks = torch.full((batch, beams), -torch.inf, device=device)  # summed (penalised) log-probabilities
    ranks[:, 0] = 0.0  # all beams start equal, so only one is expanded
    sums = torch.zeros(batch, beams, device=device)  # summed log-probabilities of the model
    finished = _Finished(batch, decoding.num_keep_best, tokens, length, device)
    done = torch.zeros(batch, 1, dtype=torch.bool, device=device)
    first = torch.arange(batch, device=device)[:, None] * beams  # row of each video's first beam
    for position in range(1, length):
        logits = decoder.logits(ids.flatten(0, 1), position)
        penalised = penalise_repetition(logits, ids.flatten(0, 1)[:, :position], decoding.repetition_penalty)
        steps, own = (values.log_softmax(-1).view(batch, beams, -1) for values in (penalised, logits))
        size = steps.shape[-1]
        # Of 2K candidates at most K end here, one per beam, so at least K remain.
        best, flat = (ranks[..., None] + steps).flatten(1).topk(min(2 * beams, beams * size), dim=1)
        parents, words = flat // size, flat % size
        totals = (sums[..., None] + own).flatten(1).gather(1, flat)
        grown = ids.gather(1, parents[..., None].expand(-1, -1, length)).clone()
        grown[..., position] = words
        ends = words == tokens.sep
        closing = ends if position < last else torch.ones_like(ends)
        closing = closing & (torch.arange(closing.shape[1], device=device) < beams) & ~done
        closed = grown
        if position == last:
            closed = grown.clone()
            closed[..., last] = tokens.sep
        normal = position**decoding.length_penalty
        finished.add(closed, (best / normal).masked_fill(~closing, -torch.inf), totals / position)
        ranks, chosen = best.masked_fill(ends, -torch.inf).topk(beams, dim=1)
        ids = grown.gather(1, chosen[..., None].expand(-1, -1, length))
        sums, parents = totals.gather(1, chosen), parents.gather(1, chosen)
        # Sums only fall, so the largest divisor gives a beam's best rank: at the end, or here for penalties ≤ 0.
        reach = ranks[:, :1] / (last if decoding.length_penalty > 0 else position) ** decoding.length_penalty
        done = done | (finished.ranks[:, -1:] >= reach)
        if done.all():
            break
        decoder.reorder((first + parents).flatten())
    return Captions(finished.ids, finished.scores)
