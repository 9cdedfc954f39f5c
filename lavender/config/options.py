"""Options of the schema, by name."""

import dataclasses
import functools
from typing import get_type_hints

from lavender.config.comparisons import Counts
from lavender.config.schema import Config
from lavender.config.values import Option


@functools.cache
def options() -> dict[str, Option]:
    """Name → option, in schema order."""
    kinds = get_type_hints(Config)
    blank = Config()
    return {
        item.name: Option(item.name, kinds[item.name], getattr(blank, item.name), **item.metadata)
        for item in dataclasses.fields(Config)
        if item.metadata
    }


def counting(where: Counts) -> list[str]:
    """Names of the options that count in a comparison, in schema order."""
    return [name for name, option in options().items() if option.counts & where]
