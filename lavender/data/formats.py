"""Which data format the configuration of a task has."""

from lavender.config.schema import Config

_BY_NAME = {"lsmdc-fib": "fib", "lsmdc-mc": "retmc", "msrvtt-mc": "retmc"}  # released configurations say no more


def format_of(config: Config) -> str:
    """`qaoe`, `fib`, `qamc`, `retmc`, `retrieval`, `captioning` or `pretrain`, or the type of a task of one's own."""
    return config.dataset_type or _BY_NAME.get(config.task, config.type)
