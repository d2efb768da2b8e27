"""The Policy: its fields, their bounds, and who may change them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atb.core.errors import UsageError
from atb.core.policy import (
    BY_NAME,
    FIELDS,
    FLAGS,
    LIMITS,
    Field,
    Policy,
    effective_policy,
    load_policy,
    make_policy,
    parse_partial_exits,
)

NUMBERS = [field for field in FIELDS if isinstance(field.default, int | float)]
WHOLE = {"cooldown", "max_hold", "max_open_positions"}
field_of = st.sampled_from(NUMBERS)


def refused(values: dict[str, Any], origin: str = FLAGS) -> UsageError:
    with pytest.raises(UsageError) as caught:
        make_policy(values, origin)
    return caught.value


def policy_file(folder: Path, text: str) -> str:
    path = folder / "policy.toml"
    path.write_text(text)
    return str(path)


# --- fields


def test_the_fields_are_those_of_the_policy_with_its_defaults() -> None:
    assert Policy._fields == tuple(field.name for field in FIELDS)
    assert {field.name: field.default for field in FIELDS} == Policy()._asdict()
    assert make_policy({}) == Policy()


@given(field_of)
def test_the_defaults_lie_within_their_own_bounds(field: Field) -> None:
    assert field.low <= field.default <= field.high
    assert (
        getattr(make_policy({field.name: field.low, "stop_loss": 0.1} | {field.name: field.low}), field.name)
        == field.low
    )
    assert getattr(make_policy({field.name: field.high}), field.name) == field.high


@given(field_of, st.floats(allow_nan=True, allow_infinity=True))
def test_a_number_is_within_its_bounds_or_refused(field: Field, value: float) -> None:
    fits = field.low <= value <= field.high and (field.name not in WHOLE or value == int(value))
    if fits:
        kept = getattr(make_policy({field.name: value}), field.name)
        assert kept == value
        assert isinstance(kept, int) == (field.name in WHOLE)
    else:
        assert field.flag in refused({field.name: value}).what


@pytest.mark.parametrize("value", ["0.1", True, None, [0.1], {"a": 1}, math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("field", NUMBERS, ids=lambda f: f.name)
def test_what_is_no_number_is_refused(field: Field, value: Any) -> None:
    error = refused({field.name: value})
    assert error.exit_code == 2
    assert field.flag in error.what and repr(value) in error.what


def test_a_count_must_be_whole() -> None:
    assert "--max-hold must be a whole number, not 1.5" in refused({"max_hold": 1.5}).what


@pytest.mark.parametrize("direction", ["short", "both"])
def test_a_short_is_refused_as_such(direction: str) -> None:
    error = refused({"direction": direction})
    assert "a short was asked for" in error.what and "long only" in error.what


@pytest.mark.parametrize(
    ("name", "value"), [("direction", "up"), ("sizing", "x"), ("neutral", 3), ("sizing", ["risk"])]
)
def test_a_choice_names_what_there_is(name: str, value: Any) -> None:
    error = refused({name: value})
    assert BY_NAME[name].flag in error.what and BY_NAME[name].default in error.what


def test_an_unknown_field_names_the_nearest() -> None:
    error = refused({"stop_los": 0.1})
    assert "unknown field 'stop_los'" in error.what and "stop_loss" in error.hint


def test_a_flag_is_named_as_a_flag_and_a_field_of_a_file_with_its_file() -> None:
    assert refused({"stop_loss": 3}).what.startswith("--stop-loss must be")
    assert refused({"stop_loss": 3}, "policy.toml").what.startswith("policy.toml: stop_loss must be")


def test_risk_needs_a_stop() -> None:
    assert "needs a stop" in refused({"sizing": "risk", "stop_loss": 0}).what
    assert (
        "needs a stop" in refused({"sizing": "risk", "stop_loss": 0, "trailing_stop": 0.1, "trailing_after": 0.1}).what
    )
    assert make_policy({"sizing": "risk", "stop_loss": 0, "trailing_stop": 0.1}).trailing_stop == 0.1


@pytest.mark.parametrize(
    "levels",
    [
        [(0.1, 0.5), (0.1, 0.2)],
        [(0.2, 0.5), (0.1, 0.2)],
        [(0.0, 0.5)],
        [(math.nan, 0.5)],
        [(math.inf, 0.5)],
        [(0.1, 0.0)],
        [(0.1, math.nan)],
        [(0.1, 0.8), (0.2, 0.3)],
        [(i / 10, 0.1) for i in range(1, 5)],
        [0.1],
        [(0.1,)],
        0.1,
        True,
        "0.1:0.5",
        {"a": 1},
    ],
)
def test_partial_exits_that_cannot_be(levels: Any) -> None:
    assert "--partial-exits" in refused({"partial_exits": levels}).what


def test_partial_exits_in_every_spelling() -> None:
    meant = ((0.05, 0.5), (0.1, 0.25))
    assert make_policy({"partial_exits": [[0.05, 0.5], [0.1, 0.25]]}).partial_exits == meant
    assert make_policy({"partial_exits": ["0.05:0.5", "0.1:0.25"]}).partial_exits == meant
    assert parse_partial_exits(["0.05:0.5", "0.1:0.25"]) == meant
    assert make_policy({"partial_exits": []}).partial_exits == ()
    for text in ("", "0.1", "a:b", "0.1:0.5:0.2", ":"):
        with pytest.raises(UsageError, match="GAIN:SHARE"):
            parse_partial_exits([text])


@given(field_of, st.floats(0, 1))
def test_the_hash_names_the_values(field: Field, share: float) -> None:
    value: float = field.low + share * (min(field.high, 100.0) - field.low)
    changed = make_policy({field.name: int(value) if field.name in WHOLE else value})
    assert changed.digest() == Policy(**changed._asdict()).digest()
    assert (changed.digest() == Policy().digest()) == (changed == Policy())
    assert len(changed.digest()) == 12


# --- who says what


def test_flags_come_before_the_file_and_the_file_before_the_strategy() -> None:
    own, file, flags = (
        {"stop_loss": 0.1, "take_profit": 0.2, "max_hold": 5},
        {"take_profit": 0.3, "max_hold": 6},
        {"max_hold": 7},
    )
    policy, notes = effective_policy(own, file, flags)
    assert (policy.stop_loss, policy.take_profit, policy.max_hold) == (0.1, 0.3, 7)
    assert policy.fraction == Policy().fraction
    assert notes == []


def looser(name: str, value: float) -> float:
    """How much a limit allows: 0 switches the daily loss limit off."""
    return math.inf if name == "daily_loss_limit" and value == 0 else value


@given(st.sampled_from(LIMITS), st.floats(0, 1), st.floats(0, 1), st.booleans())
def test_a_limit_of_the_strategy_is_only_tightened(name: str, a: float, b: float, by_flag: bool) -> None:
    own, asked = (BY_NAME[name].low + round(x * 50) / 50 * (1 - BY_NAME[name].low) for x in (a, b))
    if name in WHOLE:
        own, asked = 1 + round(a * 9), 1 + round(b * 9)
    given_values = ({}, {name: asked}) if by_flag else ({name: asked}, {})
    policy, notes = effective_policy({name: own}, *given_values)
    assert looser(name, getattr(policy, name)) == min(looser(name, own), looser(name, asked))
    assert bool(notes) == (looser(name, asked) > looser(name, own))
    assert all(BY_NAME[name].flag in note for note in notes)


@given(st.sampled_from(LIMITS))
def test_without_a_limit_of_the_strategy_s_own_the_operator_may_loosen_the_default(name: str) -> None:
    loose = 0.0 if name == "daily_loss_limit" else BY_NAME[name].high
    policy, notes = effective_policy({}, {}, {name: loose})
    assert getattr(policy, name) == loose and notes == []


def test_an_error_names_where_the_value_came_from() -> None:
    for own, file, flags, place in (
        ({"fraction": 9}, {}, {}, "the strategy's policy: fraction"),
        ({}, {"fraction": 9}, {}, "my.toml: fraction"),
        ({}, {}, {"fraction": 9}, "--fraction"),
    ):
        with pytest.raises(UsageError) as caught:
            effective_policy(own, file, flags, "my.toml")
        assert caught.value.what.startswith(place)


# --- files


def test_a_file_flat_or_under_policy(tmp_path: Path) -> None:
    text = 'sizing = "risk"\nstop_loss = 0.04\nmax_hold = 12\npartial_exits = [[0.05, 0.5]]\n'
    expected = {"sizing": "risk", "stop_loss": 0.04, "max_hold": 12, "partial_exits": ((0.05, 0.5),)}
    assert load_policy(policy_file(tmp_path, text)) == expected
    assert load_policy(policy_file(tmp_path, "[policy]\n" + text + "[other]\nx = 1\n")) == expected
    assert load_policy(policy_file(tmp_path, "")) == {}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("stop_los = 0.1", "unknown field 'stop_los'"),
        ("stop_loss = '0.1'", "stop_loss must be a number from 0 to 0.999, not '0.1'"),
        ("stop_loss = true", "stop_loss must be a number"),
        ("stop_loss = nan", "stop_loss must be a number"),
        ("max_hold = 1.5", "max_hold must be a whole number"),
        ("max_hold = inf", "max_hold must be a number"),
        ("partial_exits = 5", "partial_exits must be pairs"),
        ("partial_exits = [5]", "partial_exits must be pairs"),
        ("partial_exits = {a = 1}", "partial_exits must be pairs"),
        ("direction = 'short'", "a short was asked for"),
        ("sizing = 3", "sizing must be fraction or risk or confidence"),
        ("policy = 3", "[policy] must be a table"),
        ("stop_loss = 0.1\n[policy]\nmax_hold = 3", "stop_loss stands outside [policy]"),
        ("stop_loss 0.1", "is not TOML"),
        ("stop_loss = 0.1\nstop_loss = 0.2", "is not TOML"),
    ],
)
def test_a_wrong_file_is_refused_with_its_name(tmp_path: Path, text: str, told: str) -> None:
    path = policy_file(tmp_path, text)
    with pytest.raises(UsageError) as caught:
        load_policy(path)
    assert caught.value.what.replace("Policy file ", "").startswith(path)
    assert told in caught.value.what


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "latin.toml").write_bytes(b"x = '\xe9'")
    (tmp_path / "policy.toml").write_text("")
    for name, told, hint in (
        ("polisy.toml", "does not exist", "Nearest: policy.toml"),
        ("none/a.toml", "does not exist", "as in stop_loss = 0.03"),
        ("", "is a folder, not a file", "as in stop_loss = 0.03"),
        ("latin.toml", "cannot be read", "UTF-8"),
    ):
        with pytest.raises(UsageError, match=told) as caught:
            load_policy(str(tmp_path / name))
        assert hint in caught.value.hint and "Errno" not in caught.value.what
