"""Arguments of RateLimiter from a TOML file and from the environment, and what every mistake says."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ratelimit_async import ConfigurationError, RateLimiter
from ratelimit_async._loading import load_environment, load_toml
from ratelimit_async._settings import Settings

if TYPE_CHECKING:
    from pathlib import Path

WHOLE = """
url = "memory://"
default = "100/minute"
prefix = "app"
processor = false
batch_size = 50
lease = 2.5

[limits]
openai = "500/minute; 30000 tokens/minute"
search = ["5/second", "100/minute"]

[limits.mail]
limits = ["10/second"]
queue = {max_size = 500}
by = {vip = "1000/minute"}
"""


@pytest.fixture
def toml(tmp_path: Path) -> Path:
    path = tmp_path / "limits.toml"
    path.write_text(WHOLE)
    return path


def wrong_toml(path: object) -> ConfigurationError:
    with pytest.raises(ConfigurationError) as caught:
        load_toml(path)
    return caught.value


def wrong_environment(**environ: str) -> ConfigurationError:
    with pytest.raises(ConfigurationError) as caught:
        load_environment(environ)
    return caught.value


# ---- a file ----


def test_a_file_gives_what_stands_in_it_and_no_more(toml: Path) -> None:
    assert load_toml(toml) == {
        "url": "memory://",
        "default": "100/minute",
        "prefix": "app",
        "processor": False,
        "batch_size": 50,
        "lease": 2.5,
        "limits": {
            "openai": "500/minute; 30000 tokens/minute",
            "search": ["5/second", "100/minute"],
            "mail": {"limits": ["10/second"], "queue": {"max_size": 500}, "by": {"vip": "1000/minute"}},
        },
    }


def test_a_path_may_be_a_text(toml: Path) -> None:
    assert load_toml(str(toml)) == load_toml(toml)


def test_an_empty_file_gives_nothing(toml: Path) -> None:
    toml.write_text("")
    assert load_toml(toml) == {}


def test_false_is_no_default_in_a_file(toml: Path) -> None:
    toml.write_text("default = false")
    assert load_toml(toml) == {"default": None}


def test_every_setting_may_stand_in_a_file(toml: Path) -> None:
    settings = msgspec.structs.asdict(Settings())
    toml.write_text("\n".join(f"{name} = {msgspec.json.encode(value).decode()}" for name, value in settings.items()))
    assert load_toml(toml) == settings


def test_a_limiter_takes_what_a_file_gives(toml: Path) -> None:
    toml.write_text('url = "redis://localhost"\nlease = 2.5\n[limits.mail]\nlimits = "5/s"\nqueue = {max_size = 5}')
    assert repr(RateLimiter(**load_toml(toml))) == "<RateLimiter localhost:6379>"


@pytest.mark.parametrize("line", ["leas = 2.5", "[leas]", "[[leas]]"])
def test_an_unknown_key_is_named_with_its_file(toml: Path, line: str) -> None:
    toml.write_text(line)
    error = wrong_toml(toml)
    assert error.field == "leas"
    assert "limits.toml" in error.problem


def test_an_unknown_key_is_named_with_its_value(toml: Path) -> None:
    toml.write_text("leas = 2.5")
    assert wrong_toml(toml).value == 2.5


@pytest.mark.parametrize("line", ['limits = "5/second"', "[[limits]]", "limits = 5"])
def test_limits_in_a_file_must_be_a_table(toml: Path, line: str) -> None:
    toml.write_text(line)
    assert wrong_toml(toml).field == "limits"


@pytest.mark.parametrize("path", [None, 0, b"limits.toml", {}, []])
def test_a_path_must_be_a_text_or_a_path(path: object) -> None:
    assert wrong_toml(path).field == "config"


@pytest.mark.parametrize("name", ["", "missing.toml", "\0", "\ud800"])
def test_a_file_that_cannot_be_opened_is_a_mistake(tmp_path: Path, name: str) -> None:
    error = wrong_toml(tmp_path / name)
    assert (error.field, error.value) == ("config", tmp_path / name)


@pytest.mark.parametrize(
    "content",
    [
        b"url",
        b'url = "redis://me:secret@localhost',
        b"\xff",
        b"lease = " + b"9" * 5000,
        b"lease = " + b"[" * 100_000,
    ],
    ids=["no value", "no end", "no text", "endless number", "endless array"],
)
def test_a_file_that_is_no_toml_is_a_mistake(toml: Path, content: bytes) -> None:
    toml.write_bytes(content)
    error = wrong_toml(toml)
    assert (error.field, error.value) == ("config", toml)
    assert "secret" not in str(error)


# ---- the environment ----


def test_an_environment_without_our_variables_gives_nothing() -> None:
    assert load_environment({"PATH": "/bin", "RATELIMIT": "x", "ratelimit_lease": "x"}) == {}


def test_variables_are_read_by_the_types_of_the_settings() -> None:
    environ = {
        "RATELIMIT_URL": "memory://",
        "RATELIMIT_DEFAULT": "10/second",
        "RATELIMIT_PREFIX": "7",
        "RATELIMIT_PROCESSOR": "off",
        "RATELIMIT_BATCH_SIZE": "50",
        "RATELIMIT_LEASE": " 2.5 ",
    }
    expected = {
        "url": "memory://",
        "default": "10/second",
        "prefix": "7",
        "processor": False,
        "batch_size": 50,
        "lease": 2.5,
    }
    assert load_environment(environ) == expected


def test_every_setting_has_a_variable() -> None:
    settings = msgspec.structs.asdict(Settings())
    environ = {f"RATELIMIT_{name.upper()}": str(value) for name, value in settings.items()}
    assert load_environment(environ) == settings


@pytest.mark.parametrize(
    ("texts", "expected"), [(("1", "true", "Yes", "ON"), True), (("0", "FALSE", "no", "Off"), False)]
)
def test_yes_and_no_have_several_words(texts: tuple[str, ...], expected: object) -> None:
    assert {load_environment({"RATELIMIT_PROCESSOR": text})["processor"] for text in texts} == {expected}


@pytest.mark.parametrize(
    ("variable", "text"),
    [
        ("RATELIMIT_LEASE", "soon"),
        ("RATELIMIT_LEASE", ""),
        ("RATELIMIT_LEASE", "1e999"),
        ("RATELIMIT_LEASE", "\udcff"),
        ("RATELIMIT_BATCH_SIZE", "2.5"),
        ("RATELIMIT_BATCH_SIZE", "9" * 5000),
        ("RATELIMIT_PROCESSOR", "maybe"),
        ("RATELIMIT_PROCESSOR", ""),
        ("RATELIMIT_LIMITS", "5/second"),
        ("RATELIMIT_LIMITS", '["5/second"]'),
        ("RATELIMIT_LIMITS", "null"),
        ("RATELIMIT_LIMITS", ""),
    ],
)
def test_a_wrong_text_is_named_with_its_variable(variable: str, text: str) -> None:
    error = wrong_environment(**{variable: text})
    assert (error.field, error.value) == (variable, text)


@pytest.mark.parametrize("text", ["", "none", "null", "None", "NULL", "false"])
def test_a_default_may_be_none_in_the_environment(text: str) -> None:
    assert load_environment({"RATELIMIT_DEFAULT": text}) == {"default": None}


def test_a_default_may_be_json() -> None:
    text = '{"limits": "5/second", "queue": {"max_size": 5}}'
    assert load_environment({"RATELIMIT_DEFAULT": text}) == {
        "default": {"limits": "5/second", "queue": {"max_size": 5}}
    }


def test_every_two_underscores_are_a_level_and_case_does_not_count() -> None:
    environ = {
        "RATELIMIT_LIMITS__OPENAI": "500/minute; 30000 tokens/minute",
        "RATELIMIT_LIMITS__MAIL__LIMITS": "10/second",
        "RATELIMIT_LIMITS__MAIL__QUEUE__MAX_SIZE": "500",
        "RATELIMIT_LIMITS__MAIL__BY__VIP": "1000/minute",
    }
    expected = {
        "openai": "500/minute; 30000 tokens/minute",
        "mail": {"limits": "10/second", "queue": {"max_size": 500}, "by": {"vip": "1000/minute"}},
    }
    assert load_environment(environ) == {"limits": expected}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("500", 500),
        ("2.5", 2.5),
        ("true", True),
        ("null", None),
        ('["500/minute", "20 concurrent"]', ["500/minute", "20 concurrent"]),
        ('{"amount": 5, "period": 1}', {"amount": 5, "period": 1}),
        ("500/minute", "500/minute"),
        ('"500/minute"', '"500/minute"'),
        ("[500/minute]", "[500/minute]"),
        ("True", "True"),
        ("", ""),
        ("\udcff", "\udcff"),
        ("[" * 100_000, "[" * 100_000),
    ],
    ids=ascii,
)
def test_a_leaf_is_json_if_that_is_more_than_a_text(text: str, expected: object) -> None:
    assert load_environment({"RATELIMIT_LIMITS__A": text}) == {"limits": {"a": expected}}


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (
            {"A": "5/second", "A__QUEUE__MAX_SIZE": "5"},
            {"limits": "5/second", "queue": {"max_size": 5}},
        ),
        (
            {"A": '["5/second"]', "A__QUEUE__MAX_SIZE": "5"},
            {"limits": ["5/second"], "queue": {"max_size": 5}},
        ),
        (
            {"A": '{"amount": 5, "period": 1}', "A__QUEUE__MAX_SIZE": "5"},
            {"limits": {"amount": 5, "period": 1}, "queue": {"max_size": 5}},
        ),
        (
            {"A": '{"limits": "5/second", "queue": {"max_size": 7, "priorities": 2}}', "A__QUEUE__MAX_SIZE": "5"},
            {"limits": "5/second", "queue": {"max_size": 5, "priorities": 2}},
        ),
        ({"A__QUEUE": '{"priorities": 2}', "A__QUEUE__MAX_SIZE": "5"}, {"queue": {"priorities": 2, "max_size": 5}}),
        ({"A__AMOUNT": "5", "A__PERIOD": "1"}, {"amount": 5, "period": 1}),
        ({"A": "5/second", "A__LIMITS": "6/second"}, {"limits": "6/second"}),
    ],
    ids=["a text", "a list", "a limit", "a configuration", "a queue", "parts of a limit", "twice"],
)
def test_a_value_and_deeper_levels_merge_in_any_order(texts: dict[str, str], expected: object) -> None:
    environ = {f"RATELIMIT_LIMITS__{name}": text for name, text in texts.items()}
    assert load_environment(environ) == {"limits": {"a": expected}}
    assert load_environment(dict(reversed(environ.items()))) == {"limits": {"a": expected}}


def test_nothing_can_be_within_a_value_below_a_name() -> None:
    error = wrong_environment(RATELIMIT_LIMITS__A__BY="5/second", RATELIMIT_LIMITS__A__BY__VIP="6/second")
    assert (error.field, error.value) == ("RATELIMIT_LIMITS__A__BY__VIP", "6/second")


def test_names_that_no_variable_can_spell_are_given_as_json_and_single_variables_win() -> None:
    environ = {
        "RATELIMIT_LIMITS__MAIL": "7/second",
        "RATELIMIT_LIMITS__SEARCH__QUEUE__MAX_SIZE": "5",
        "RATELIMIT_LIMITS": '{"tenant:*": "10/second", "mail": "5/second", "search": "6/second"}',
    }
    expected = {
        "tenant:*": "10/second",
        "mail": "7/second",
        "search": {"limits": "6/second", "queue": {"max_size": 5}},
    }
    assert load_environment(environ) == {"limits": expected}


def test_variables_win_over_the_file_that_one_names_and_limits_merge_by_name(toml: Path) -> None:
    environ = {
        "RATELIMIT_LEASE": "3",
        "RATELIMIT_DEFAULT": "none",
        "RATELIMIT_LIMITS": '{"tenant:*": "10/second"}',
        "RATELIMIT_LIMITS__SEARCH": "6/second",
        "RATELIMIT_LIMITS__OPENAI__QUEUE__PRIORITIES": "2",
        "RATELIMIT_LIMITS__MAIL__QUEUE__MAX_SIZE": "7",
        "RATELIMIT_CONFIG": str(toml),
    }
    given = load_toml(toml)
    limits = {
        "openai": {"limits": given["limits"]["openai"], "queue": {"priorities": 2}},
        "search": "6/second",
        "mail": {"limits": ["10/second"], "queue": {"max_size": 7}, "by": {"vip": "1000/minute"}},
        "tenant:*": "10/second",
    }
    assert load_environment(environ) == {**given, "lease": 3.0, "default": None, "limits": limits}


def test_a_file_that_a_variable_names_must_be_there(tmp_path: Path) -> None:
    error = wrong_environment(RATELIMIT_CONFIG=str(tmp_path / "missing.toml"))
    assert (error.field, error.value) == ("config", str(tmp_path / "missing.toml"))


@pytest.mark.parametrize(
    "variable",
    ["RATELIMIT_LEAS", "RATELIMIT_LIMIT__A", "RATELIMIT_LEASE__A", "RATELIMIT_URL__A", "RATELIMIT_CONFIG__A"],
)
def test_an_unknown_variable_is_named_and_its_text_kept_secret(variable: str) -> None:
    error = wrong_environment(**{variable: "secret"})
    assert error.field == variable
    assert "secret" not in str(error)


@pytest.mark.parametrize(
    "variable",
    ["RATELIMIT_", "RATELIMIT__LEASE", "RATELIMIT_LIMITS__", "RATELIMIT_LIMITS____X", "RATELIMIT_LIMITS__X__"],
)
def test_an_empty_part_of_a_variable_is_a_mistake(variable: str) -> None:
    assert wrong_environment(**{variable: "5/second"}).field == variable


def test_two_variables_that_differ_by_case_alone_are_a_mistake() -> None:
    error = wrong_environment(RATELIMIT_LIMITS__A="5/second", RATELIMIT_LIMITS__a="6/second")
    assert error.field == "RATELIMIT_LIMITS__a"
    assert "RATELIMIT_LIMITS__A" in error.problem


def test_the_environment_stays_as_it_is(toml: Path) -> None:
    environ = {"RATELIMIT_CONFIG": str(toml), "RATELIMIT_LIMITS__A": "5/second"}
    before = dict(environ)
    load_environment(environ)
    assert environ == before


# ---- both ----


@pytest.mark.parametrize(
    "url", ["redis://me:se@cret@localhost/0", "redis://h?db=1&password=se@cret", "unix://:cret@/s"]
)
def test_no_mistake_shows_a_password(toml: Path, url: str) -> None:
    for line in (f"redis = '{url}'", f"limits = '{url}'", f"[redis]\nurl = '{url}'", "password = 'cret'"):
        toml.write_text(line)
        assert "cret" not in str(wrong_toml(toml))
    assert "cret" not in str(wrong_toml(url))
    for variable in ("REDIS_URL", "LEASE", "PROCESSOR", "LIMITS", "LIMITS__", "CONFIG"):
        assert "cret" not in str(wrong_environment(**{f"RATELIMIT_{variable}": url}))


parts = st.sampled_from(["URL", "DEFAULT", "CONFIG", "LIMITS", "LEASE", "PROCESSOR", "A", "a", "QUEUE", "BY", ""])
levels = st.lists(parts | st.text(max_size=3), min_size=1, max_size=5)
names = st.text() | levels.map(lambda path: "RATELIMIT_" + "__".join(path))
# What is no Unicode comes from the system as half of a surrogate.
texts = st.text(st.characters(exclude_categories=())) | st.sampled_from(
    ["5", "2.5", "on", "null", "{}", "[]", '{"a": {"queue": 5}}', '{"limits": "5/second"}', "redis://me:hunter2@h"]
)


@given(environ=st.dictionaries(names, texts))
@example(environ={"RATELIMIT_LIMITS": "[" * 100_000})
@example(environ={"RATELIMIT_CONFIG": "redis://me:hunter2@h"})
def test_any_environment_gives_arguments_or_a_mistake_without_a_password(environ: dict[str, str]) -> None:
    try:
        found: Any = load_environment(environ)
    except ConfigurationError as error:
        assert "hunter2" not in str(error)
    else:
        assert isinstance(found, dict)
        assert found.keys() <= {"url", "default", "limits", *Settings.__struct_fields__}
