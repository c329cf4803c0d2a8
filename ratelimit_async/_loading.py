"""RateLimiter's arguments from a TOML file or the environment; their values are checked by RateLimiter."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import msgspec

from ratelimit_async._config import RateLimitConfig
from ratelimit_async._errors import ConfigurationError
from ratelimit_async._settings import Settings

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["load_environment", "load_toml"]

_PREFIX = "RATELIMIT_"
_SETTINGS: dict[str, Any] = {field.name: field.type for field in msgspec.structs.fields(Settings)}
_KEYS = {"url", "default", "limits", *_SETTINGS}
_CONFIG = frozenset(RateLimitConfig.__struct_fields__)
_BOOLS = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}


def load_toml(path: object) -> dict[str, Any]:
    """Read a TOML file.

    Args:
        path: Where it is: a text or a `Path`.

    Returns:
        Keyword arguments of `RateLimiter`: what the file gives, and no more.

    Raises:
        ConfigurationError: If the file cannot be read, or has a key that RateLimiter does not take.
    """
    if not isinstance(path, (str, Path)):
        raise _wrong("config", path, "must be the path of a TOML file")
    try:
        with Path(path).open("rb") as file:
            table = tomllib.load(file)
    except (OSError, ValueError, RecursionError) as error:
        # An OSError's own text repeats the path, and somebody may have given the URL as one.
        problem = getattr(error, "strerror", None) or error
        raise _wrong("config", path, f"cannot be read: {problem}") from None
    for key, value in table.items():
        if key not in _KEYS:
            # What it is nobody knows: a text may be a secret.
            shown = "***" if isinstance(value, str) else value
            raise _wrong(key, shown, f"is not a key of RateLimiter, in {str(path)!r}")
    if not isinstance(table.get("limits", {}), dict):
        raise _wrong("limits", table["limits"], f"must be a table of names, in {str(path)!r}")
    # TOML has no null.
    if table.get("default") is False:
        table["default"] = None
    return table


def load_environment(environ: Mapping[str, str]) -> dict[str, Any]:
    """Read the variables that start with RATELIMIT_, and the file that RATELIMIT_CONFIG names; variables win.

    Args:
        environ: Usually `os.environ`.

    Returns:
        Keyword arguments of `RateLimiter`: what the variables and the file give, and no more.

    Raises:
        ConfigurationError: If a variable is not known or cannot be read, or the file cannot.
    """
    variables = _variables(environ)
    config = variables.pop(("config",), None)
    result = {} if config is None else load_toml(environ[config])
    # Fewer levels first: what is deeper goes into what is there.
    for path, variable in sorted(variables.items(), key=lambda item: (len(item[0]), item)):
        text = environ[variable]
        match path:
            case ("url",):
                result["url"] = text
            case ("default",):
                result["default"] = None if text.strip().lower() in {"", "none", "null", "false"} else _leaf(text)
            case ("limits",):
                names = _leaf(text)
                if not isinstance(names, dict):
                    raise _wrong(variable, text, "must be a JSON object of names")
                result["limits"] = result.get("limits", {}) | names
            case ("limits", *levels):
                _put(result.setdefault("limits", {}), levels, variable, text)
            case (field,) if field in _SETTINGS:
                result[field] = _setting(variable, text, _SETTINGS[field])
            case _:
                # What it is nobody knows: it may be a secret.
                raise _wrong(variable, "***", "is not a variable of RateLimiter")
    return result


def _variables(environ: Mapping[str, str]) -> dict[tuple[str, ...], str]:
    """Find our variables by their levels; a text whose variable is not understood may be a secret."""
    found: dict[tuple[str, ...], str] = {}
    for variable in environ:
        if variable.startswith(_PREFIX):
            path = tuple(variable.removeprefix(_PREFIX).lower().split("__"))
            if "" in path:
                raise _wrong(variable, "***", "has an empty part: one name stands on each side of __")
            if path in found:
                raise _wrong(variable, "***", f"is the same as {found[path]}: their case does not count")
            found[path] = variable
    return found


def _setting(variable: str, text: str, kind: Any) -> object:
    if kind is str:
        return text
    word = text.strip()
    try:
        return _BOOLS[word.lower()] if kind is bool else msgspec.convert(word, kind, strict=False)
    except (KeyError, ValueError):
        raise _wrong(variable, text, f"cannot be read as {getattr(kind, '__name__', kind)}") from None


def _leaf(text: str) -> Any:
    """Decode what JSON reads as more than a text; `500/minute` it does not read at all."""
    try:
        value: object = msgspec.json.decode(text)
    except (ValueError, RecursionError):
        return text
    return text if isinstance(value, str) else value


def _put(limits: dict[str, Any], path: list[str], variable: str, text: str) -> None:
    """Set a value some levels down."""
    name = path[0]
    if len(path) > 1 and name in limits:
        spec = limits[name]
        # What a name says in one piece, a text or a mapping that is a limit, is its limits beside a queue.
        if not isinstance(spec, dict) or (path[1] in _CONFIG and not _CONFIG & spec.keys()):
            limits[name] = {"limits": spec}
    inner = limits
    for level in path[:-1]:
        found: object = inner.setdefault(level, {})
        if not isinstance(found, dict):
            raise _wrong(variable, text, f"{level!r} has a value already, so nothing can be within it")
        inner = cast("dict[str, Any]", found)
    inner[path[-1]] = _leaf(text)


def _wrong(field: str, value: object, problem: str) -> ConfigurationError:
    """Build an error; no password comes with it: errors are logged."""
    if "password" in field.lower():
        value = "***"
    elif isinstance(value, str) and "://" in value:
        value = f"{value.partition('://')[0]}://***"
    elif isinstance(value, (dict, list)):
        value = "{...}" if isinstance(value, dict) else "[...]"
    return ConfigurationError(field, value, problem)
