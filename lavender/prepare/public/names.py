"""Table of supported public annotations: their names and readers."""

from collections.abc import Callable
from dataclasses import dataclass

from lavender.prepare.public import corpora, didemo, lsmdc, msrvtt, msvd, tgif, xu_qa
from lavender.prepare.public.outputs import Output
from lavender.prepare.public.source import Source

SPLITS_OF_MSRVTT = ("7k", "9k", "full")


@dataclass(frozen=True)
class Annotations:
    """Reader of a data set's annotations.

    Args:
        read: (folder, requested retrieval split) → outputs to write.
        dataset: its frames are `img_<dataset>.tsv`; "" for pretraining, whose frames are in parts.
    """

    read: Callable[[Source, str], list[Output]]
    dataset: str = ""


NAMES = {
    "msrvtt": Annotations(msrvtt.read_msrvtt, "msrvtt"),
    "msrvtt-qa": Annotations(xu_qa.read_msrvtt_qa, "msrvtt"),
    "msrvtt-mc": Annotations(msrvtt.read_msrvtt_mc, "msrvtt"),
    "msvd": Annotations(msvd.read_msvd, "msvd"),
    "msvd-qa": Annotations(xu_qa.read_msvd_qa, "msvd"),
    "tgif-action": Annotations(tgif.read_tgif_action, "tgif"),
    "tgif-transition": Annotations(tgif.read_tgif_transition, "tgif"),
    "tgif-frame": Annotations(tgif.read_tgif_frame, "tgif"),
    "lsmdc": Annotations(lsmdc.read_lsmdc, "lsmdc"),
    "lsmdc-mc": Annotations(lsmdc.read_lsmdc_mc, "lsmdc"),
    "lsmdc-fib": Annotations(lsmdc.read_lsmdc_fib, "lsmdc"),
    "didemo": Annotations(didemo.read_didemo, "didemo"),
    "webvid": Annotations(corpora.read_webvid),
    "cc3m": Annotations(corpora.read_cc3m),
}
