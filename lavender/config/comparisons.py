"""In which comparisons of two runs an option counts. Every option of the schema says it."""

from enum import Flag, auto


class Counts(Flag):
    """Where two runs must have the same value of an option. Every member but `NOWHERE` includes `RUN`."""

    NOWHERE = 0  # no result depends on it: a stopped run may be resumed with another value
    RUN = auto()  # a stopped run is resumed with the same value only
    CAPTIONS = auto()  # captions made earlier are used again with the same value only
    DRAWN = auto()  # likewise, for captions whose words are drawn at random (do_sample)
    SCORES = auto()  # a stopped retrieval evaluation is resumed with the same value only
    MODEL = auto()  # the model itself: taken over from the args.json beside a checkpoint
    INPUT = auto()  # what the model was trained on: taken over where nothing is trained
    PREFIX = auto()  # what stands before the text: taken over where nothing is trained, from a multi-task checkpoint


NOWHERE, RUN, CAPTIONS, DRAWN = Counts.NOWHERE, Counts.RUN, Counts.CAPTIONS, Counts.DRAWN
SCORES, MODEL, INPUT, PREFIX = Counts.SCORES, Counts.MODEL, Counts.INPUT, Counts.PREFIX
