"""Options from a suite, held against the frozen dataclass that takes them: unknown keys, wrong types, bad values."""

import dataclasses
import math
import tomllib
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from bench.registry import unknown

TYPE_NAMES = {
    str: "a text",
    list: "a list",
    dict: "a table",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
}


class Problems:
    """Collects what is wrong with one file, so that all of it is said at once."""

    def __init__(self, subject: str) -> None:
        self.subject = subject
        self.found: list[str] = []

    def add(self, text: str) -> None:
        """Note one problem, once."""
        line = f"{self.subject}: {text}"
        if line not in self.found:
            self.found.append(line)


def text_of(path: Path, problems: Problems) -> str:
    """The text of a TOML file; none, with the problem noted, where it cannot be read."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        problems.add(f"cannot be read ({error}); expected TOML; mend the file")
        return ""


def toml_of(text: str, problems: Problems) -> dict[str, Any]:
    """What a TOML text holds; nothing, with the problem noted, where it is none."""
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        problems.add(f"cannot be read ({error}); expected TOML; mend the file")
        return {}


def checked_keys(table: Mapping[str, Any], keys: Mapping[str, Any], where: str, problems: Problems) -> None:
    """Note every key that is unknown and every value that has another type than the key's."""
    for key, value in table.items():
        path = f"{where}.{key}" if where else key
        if key not in keys:
            problems.add(f"{path}: {unknown('key', key, keys, 'README, suites')}")
        elif not isinstance(value, keys[key]):
            problems.add(f"{path}: got {value!r}; expected {type_name(keys[key])}; change it")


def type_name(kind: Any) -> str:
    """What people call a TOML type."""
    return " or ".join(TYPE_NAMES[one] for one in (kind if isinstance(kind, tuple) else (kind,)))


def built(cls: Any, options: Mapping[str, Any], where: str, problems: Problems) -> tuple[Any, dict[str, Any]] | None:
    """The dataclass with these options and all its options with values; None with what is wrong noted."""
    if not isinstance(cls, type) or not dataclasses.is_dataclass(cls):
        problems.add(f"{where}: {cls!r} takes no options; expected a frozen dataclass; make it one")
        return None
    hints = get_type_hints(cls)
    fields = {field.name: hints[field.name] for field in dataclasses.fields(cls) if field.init}
    before = len(problems.found)
    values = {}
    for key, value in options.items():
        if key not in fields:
            problems.add(f"{where}.{key}: {unknown('option', key, fields, 'the docstring of ' + cls.__name__)}")
        elif not fits(value, fields[key]):
            problems.add(f"{where}.{key}: got {value!r}; expected {expectation(fields[key])}; change it")
        else:
            values[key] = float(value) if fields[key] is float else tuple(value) if is_tuple(fields[key]) else value
    if len(problems.found) > before:
        return None
    try:
        made = cls(**values)
    except (TypeError, ValueError) as error:
        problems.add(f"{where}.{error}")
        return None
    return made, {name: getattr(made, name) for name in fields}


def fits(value: Any, hint: Any) -> bool:
    """Whether a TOML value may stand where the annotation says; whole numbers may stand for floats."""
    if get_origin(hint) is Literal:
        return value in get_args(hint)
    if get_origin(hint) in (Union, types.UnionType):
        return any(fits(value, part) for part in get_args(hint) if part is not type(None))
    if hint is float:
        return type(value) in (int, float) and math.isfinite(value)
    if is_tuple(hint):
        return isinstance(value, list | tuple) and all(fits(one, get_args(hint)[0]) for one in value)
    return type(value) is (get_origin(hint) or hint)


def is_tuple(hint: Any) -> bool:
    """Whether the annotation is that of a tuple of any length, for which TOML has a list."""
    return get_origin(hint) is tuple


def expectation(hint: Any) -> str:
    """What the annotation asks for, in words."""
    if get_origin(hint) is Literal:
        return "one of " + ", ".join(map(repr, get_args(hint)))
    if get_origin(hint) in (Union, types.UnionType):
        return " or ".join(expectation(part) for part in get_args(hint) if part is not type(None))
    if is_tuple(hint):
        return f"a list, each of it {expectation(get_args(hint)[0])}"
    return type_name(get_origin(hint) or hint)


def check_at_least(option: str, value: int, least: int) -> None:
    """Nothing, where the value will do.

    Raises:
        ValueError: It is below `least`.
    """
    if value < least:
        raise ValueError(f"{option}: received {value}; expected at least {least}; give {option} a larger value")
