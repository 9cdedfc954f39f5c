"""Loading of options from a JSON file and the command line into a checked `Config`; the command line takes precedence.

SCRIPT --config _args/args_msrvtt-qa.json --size_batch 4 --deepspeed false --pretrain_tasks vtm mtm
"""

import argparse
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn, get_args

from lavender.config.checks import entry_place, validate
from lavender.config.legacy import LEGACY
from lavender.config.options import options
from lavender.config.schema import Config
from lavender.config.values import COMMAND_LINE, Option, parse_json, unknown_option
from lavender.runtime.errors import ConfigError
from lavender.runtime.files import read_text
from lavender.runtime.quoting import one_line, shown_json

# Values of unset options in the args.json of released runs: read as not given.
_UNSET = {"task_token": None, "kinetics": -1}
_EVERY_NAME = "Accepted for compatibility, but ignored: " + ", ".join(LEGACY)
_OLD_PREFIXES = ("vidswin", "backbone")  # old prefixes of names that now begin with vis_backbone


def load_config(arguments: Sequence[str] | None = None, kind: str = "") -> Config:
    """Loads the configuration of a run.

    Args:
        arguments: command-line arguments, by default those of this process.
        kind: kind of task of the script, whose options `--help` shows; empty for all options.

    Raises:
        ConfigError: a file is unreadable, or an option is unknown, invalid or in conflict with another.
    """
    spoken, remarks = _read_command_line(arguments, kind)
    path = spoken.get("config", "")
    written: dict[str, Any] = {}
    if path:
        written, file_remarks = _checked(read_object(path), path)
        remarks = file_remarks + remarks
    given = {**dict.fromkeys(written, "file"), **dict.fromkeys(spoken, COMMAND_LINE)}
    config = Config(**{**written, **spoken}, given=given, remarks=remarks)
    validate(config, path or COMMAND_LINE)
    return config


def from_dict(values: Mapping[str, Any], source: str, *, strict: bool = True) -> Config:
    """Makes a configuration from a JSON object; all options count as `given` by a "file".

    Args:
        values: options; absent ones have their defaults.
        source: their source, for messages.
        strict: False for the record of a past run (`args.json`): unknown keys give a notice instead of an error, and
            combinations are not checked.

    Raises:
        ConfigError: as for `load_config`.
    """
    checked, remarks = _checked(values, source, strict)
    config = Config(**checked, given=dict.fromkeys(checked, "file"), remarks=remarks)
    if strict:
        validate(config, source)
    return config


def read_object(path: str | Path) -> dict[str, Any]:
    """Reads the JSON object of a file.

    Raises:
        ConfigError: the file is missing, not text, not JSON (with line and column), or not an object.
    """
    value = parse_json(read_text(path, ConfigError), str(path))
    if not isinstance(value, dict):
        raise ConfigError(f"{path}: the file must hold one JSON object, {{...}}, of options")
    return value


def _checked(values: Mapping[str, Any], source: str, strict: bool = True) -> tuple[dict[str, Any], list[str]]:
    """Values under current names with their options' types, and notices about values without effect."""
    checked: dict[str, Any] = {}
    remarks: list[str] = []
    for key, value in values.items():
        name = _todays_name(key)
        if name in LEGACY:
            remarks.append(_legacy_remark(name, source))
        elif name in options():
            if name != key:
                remarks.append(f"{source}: {key} is called {name} now")
                if name in values:
                    continue
            if name not in _UNSET or value != _UNSET[name]:
                checked[name] = options()[name].check(value, source)
        elif strict:
            raise unknown_option(key, options(), source)
        else:
            remarks.append(f"{source}: {one_line(key)} is unknown and changes nothing")
    if "datasets" in checked:
        checked["datasets"], entry_remarks = _checked_entries(checked["datasets"], source, strict)
        remarks += entry_remarks
    return checked, remarks


def _checked_entries(entries: list[dict], source: str, strict: bool) -> tuple[list[dict], list[str]]:
    checked, remarks = [], []
    for number, entry in enumerate(entries, start=1):
        place = entry_place(source, number)
        if "datasets" in entry:
            raise ConfigError(f"{place}: an entry cannot hold datasets of its own; move them one level up")
        values, entry_remarks = _checked(entry, place, strict)
        checked.append(values)
        remarks += entry_remarks
    return checked, remarks


def _todays_name(key: str) -> str:
    for prefix in _OLD_PREFIXES:
        if key.startswith(prefix):
            name = f"vis_backbone{key.removeprefix(prefix)}"
            return name if name in options() else key
    return key


def _legacy_remark(name: str, source: str) -> str:
    return f"{source}: {name} is accepted and changes nothing: {LEGACY[name]}"


# --- the command line -------------------------------------------------------------------------------------------------


class _Parser(argparse.ArgumentParser):
    """Raises faults as ConfigError, where argparse would print its usage and exit."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{COMMAND_LINE}: {one_line(message, 500)}")


def _read_command_line(arguments: Sequence[str] | None, kind: str) -> tuple[dict[str, Any], list[str]]:
    """Options of the command line with their types, and notices about options without effect."""
    words, strangers = _build_parser(kind).parse_known_args(arguments)
    for word in strangers:
        if word.startswith("--") and len(word) > 2:
            raise unknown_option(word[2:].split("=")[0], options(), COMMAND_LINE)
        raise ConfigError(f"{COMMAND_LINE}: {shown_json(word)} belongs to no option; write --NAME VALUE")
    spoken, remarks = {}, []
    for name, value in vars(words).items():
        if name in LEGACY:
            if name != "local_rank":
                remarks.append(_legacy_remark(name, COMMAND_LINE))
        else:
            spoken[name] = options()[name].parse(value)
    if "datasets" in spoken:
        spoken["datasets"], entry_remarks = _checked_entries(spoken["datasets"], COMMAND_LINE, strict=True)
        remarks += entry_remarks
    return spoken, remarks


def _build_parser(kind: str) -> _Parser:
    others = [option.name for option in options().values() if not option.is_of(kind)]
    parser = _Parser(
        usage="%(prog)s --config FILE [--NAME VALUE ...]",
        description="Options are read from the JSON file; options on the command line override it.",
        epilog=f"{len(others)} options of other tasks: --help-all" if others else _EVERY_NAME,
        allow_abbrev=False,
        argument_default=argparse.SUPPRESS,
    )
    groups: dict[str, argparse._ArgumentGroup] = {}
    for option in options().values():
        if option.group not in groups:
            groups[option.group] = parser.add_argument_group(option.group)
        help_text = _help(option) if option.name not in others else argparse.SUPPRESS
        groups[option.group].add_argument(f"--{option.name}", **_accepted_words(option), help=help_text)
    for name in LEGACY:  # launchers have two spellings of the local rank
        flags = {f"--{name}", f"--{name.replace('_', '-')}"} if name == "local_rank" else {f"--{name}"}
        parser.add_argument(*flags, dest=name, nargs="*", help=argparse.SUPPRESS)
    parser.add_argument(
        "-v", "--verbose", action=_Verbose, nargs=0, help="verbose log: every step, and all weights that were loaded"
    )
    if others:
        parser.add_argument("--help-all", action=_HelpAll, nargs=0, help="show the options of all tasks and exit")
    return parser


class _Verbose(argparse.Action):
    """Sets the log level to debug; not an option of the run, which it does not affect."""

    def __call__(self, *_: object) -> None:
        logging.getLogger("lavender").setLevel(logging.DEBUG)


class _HelpAll(argparse.Action):
    """Shows the options of all tasks, for any script."""

    def __call__(self, *_: object) -> NoReturn:
        _build_parser("").print_help()
        raise SystemExit(0)


def _accepted_words(option: Option) -> dict[str, Any]:
    """Number of arguments that argparse accepts after the flag; all arrive as a list of strings."""
    named = option.named_choices
    metavar = "{" + ",".join(named) + "}" if named else None
    if option.kind is bool:
        return {"action": _OptionalWord, "nargs": "?", "metavar": "BOOL"}
    many = list[str] in (option.kind, *get_args(option.kind))
    return {"nargs": "+" if many else 1, "metavar": metavar or option.name.upper()}


class _OptionalWord(argparse.Action):
    """Stores the arguments of a boolean flag: none or one."""

    def __call__(
        self, parser: Any, namespace: argparse.Namespace, values: Any, option_string: str | None = None
    ) -> None:
        setattr(namespace, self.dest, [] if values is None else [values])


def _help(option: Option) -> str:
    default = option.default
    if isinstance(default, list):
        default = " ".join(default)
    shown = str(default).lower() if isinstance(default, bool) else default
    text = option.help if shown == "" else f"{option.help} (default: {shown})"
    return text.replace("%", "%%")
