"""Safe reading of untrusted YAML: a small subset with limits, so that a small file cannot cost much."""

from pathlib import Path
from typing import Any

import yaml
from yaml.composer import ComposerError
from yaml.constructor import ConstructorError

from lavender.runtime.errors import DataError
from lavender.runtime.files import read_text
from lavender.runtime.quoting import one_line, shown

MAX_BYTES = 2**20
MAX_NODES = 10_000  # values and keys
MAX_ALIASES = 10
MAX_DEPTH = 20

# Errors of PyYAML for invalid text: its own, and those of values that do not fit their type.
_VALUE_ERRORS = (ValueError, LookupError, AttributeError, TypeError, OverflowError)
_INT, _FLOAT = "tag:yaml.org,2002:int", "tag:yaml.org,2002:float"


def read_yaml(path: Path) -> Any:
    """Reads the value of a YAML file.

    Raises:
        DataError: with file and line: not YAML, a repeated key, or more bytes, values, aliases or levels than the
            limits above.
    """
    if path.is_file() and (size := path.stat().st_size) > MAX_BYTES:
        raise DataError(f"{path}: {size:,} bytes are too many for a YAML of file names (at most {MAX_BYTES:,})")
    text = read_text(path, DataError)
    loader = None
    try:
        loader = _Loader(text)
        return loader.get_single_data()
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise DataError(f"{path}, line {line}: not valid YAML (it holds U+{error.character:04X})") from error
    except (yaml.YAMLError, RecursionError, *_VALUE_ERRORS) as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        reason = getattr(error, "problem", None) or str(error) or type(error).__name__
        raise DataError(f"{path}{where}: not valid YAML ({one_line(reason, 300)})") from error
    finally:
        if loader is not None:
            loader.dispose()


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader with limits; a number like `1:30` is text, not a base-60 number."""

    def __init__(self, text: str):
        super().__init__(text)
        self._nodes = self._aliases = self._depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event = self.peek_event()
        self._nodes += 1
        self._aliases += isinstance(event, yaml.AliasEvent)
        self._depth += 1
        for count, limit, what in (
            (self._nodes, MAX_NODES, "more than {:,} values; split the file"),
            (self._aliases, MAX_ALIASES, "more than {} aliases (*name); write the values out"),
            (self._depth, MAX_DEPTH, "nested too deeply, more than {} levels; write a flat list"),
        ):
            if count > limit:
                raise ComposerError(None, None, what.format(limit), event.start_mark)
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        seen: dict[tuple[str, str], yaml.Node] = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise ComposerError(None, None, "a key is a list or an object; write a name", key.start_mark)
            if first := seen.get((key.tag, key.value)):
                line = first.start_mark.line + 1
                what = f"the key {shown(key.value)} is given twice, first in line {line}; remove one"
                mark = value.start_mark if first is key else key.start_mark  # an alias has the position of its anchor
                raise ComposerError(None, None, what, mark)
            seen[key.tag, key.value] = key
        return node

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except _VALUE_ERRORS as error:
            what = f"{shown(node.value)} cannot be read as {node.tag.rpartition(':')[2]}; put it into quotes"
            raise ConstructorError(None, None, what, node.start_mark) from error

    def construct_number(self, node: yaml.ScalarNode) -> int | float:
        if ":" in self.construct_scalar(node):
            raise ValueError("a number of base 60")
        return self.construct_yaml_int(node) if node.tag == _INT else self.construct_yaml_float(node)


def _resolvers() -> dict[Any, list[tuple[str, Any]]]:
    """PyYAML's number rules without base 60 (the text of those has a colon)."""
    return {
        first: [(tag, _WithoutColon(pattern) if tag in (_INT, _FLOAT) else pattern) for tag, pattern in rules]
        for first, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


class _WithoutColon:
    def __init__(self, pattern: Any):
        self._pattern = pattern

    def match(self, text: str) -> Any:
        return None if ":" in text else self._pattern.match(text)


_Loader.yaml_implicit_resolvers = _resolvers()
for _tag in (_INT, _FLOAT):
    _Loader.add_constructor(_tag, _Loader.construct_number)
