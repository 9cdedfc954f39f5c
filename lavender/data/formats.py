"""Data format of a task's configuration."""

from lavender.config.schema import Config

_BY_NAME = {"lsmdc-fib": "fib", "lsmdc-mc": "retmc", "msrvtt-mc": "retmc"}  # released configurations give only the task


def format_of(config: Config) -> str:
    """`qaoe`, `fib`, `qamc`, `retmc`, `retrieval`, `captioning` or `pretrain`, or the type of a custom task."""
    return config.dataset_type or _BY_NAME.get(config.task, config.type)
