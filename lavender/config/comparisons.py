"""Comparisons of two runs: every option of the schema declares in which of them it counts."""

from enum import Flag, auto


class Counts(Flag):
    """Comparisons in which two runs must agree on an option. Every member but `NOWHERE` includes `RUN`."""

    NOWHERE = 0  # affects no result: a run may be resumed with another value
    RUN = auto()  # a run can only be resumed with the same value
    CAPTIONS = auto()  # earlier captions are only reused with the same value
    DRAWN = auto()  # likewise, for sampled captions (do_sample)
    SCORES = auto()  # a retrieval evaluation can only be resumed with the same value
    MODEL = auto()  # defines the model: inherited from the args.json beside a checkpoint
    INPUT = auto()  # input of the model: inherited if nothing is trained
    PREFIX = auto()  # prompt or task token: inherited from a multi-task checkpoint if nothing is trained


NOWHERE, RUN, CAPTIONS, DRAWN = Counts.NOWHERE, Counts.RUN, Counts.CAPTIONS, Counts.DRAWN
SCORES, MODEL, INPUT, PREFIX = Counts.SCORES, Counts.MODEL, Counts.INPUT, Counts.PREFIX
