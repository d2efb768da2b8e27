"""Client order ids: the same for the same thing, another for another, short enough, and known as ours."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atb.core.order_id import LEGS, OrderId, client_order_id, parse_order_id, tag
from atb.execution.adopting import is_ours

ACCOUNT = "binance:spot:real:k1"
MINUTES = st.integers(0, 2**31)


@given(MINUTES, st.sampled_from(sorted(LEGS)), st.integers(0, 36**4 - 1))
def test_it_says_what_it_is_for(minutes: int, purpose: str, attempt: int) -> None:
    text = client_order_id(ACCOUNT, "BTCUSDT", minutes * 60_000, purpose, attempt)
    assert re.fullmatch(r"[a-z0-9-]{1,36}", text)
    assert parse_order_id(text) == OrderId(tag(ACCOUNT), tag("BTCUSDT"), minutes * 60_000, purpose, attempt)
    assert is_ours(text, ACCOUNT, "BTCUSDT")
    assert not is_ours(text, ACCOUNT, "ETHUSDT") and not is_ours(text, "binance:spot:real:k2", "BTCUSDT")


def test_a_tag_is_four_characters_also_where_it_begins_with_zeros() -> None:
    tags = [tag(f"account {n}") for n in range(3_000)]
    assert {len(text) for text in tags} == {4} and {text[:2] for text in tags} >= {"00", "0a"}
    name = f"account {next(n for n, text in enumerate(tags) if text.startswith('00'))}"
    text = client_order_id(name, "BTCUSDT", 0, "entry")
    assert parse_order_id(text) == OrderId(tag(name), tag("BTCUSDT"), 0, "entry", 0) and is_ours(text, name, "BTCUSDT")


def test_another_thing_has_another_id() -> None:
    ids = [
        client_order_id(account, symbol, minute * 60_000, purpose, attempt)
        for account in ("a", "b") for symbol in ("BTCUSDT", "ETHUSDT") for minute in (0, 1, 60, 28_400_000)
        for purpose in LEGS for attempt in (0, 1, 35, 36)
    ]  # fmt: skip
    assert len(set(ids)) == len(ids)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x-R4ND0M",
        "atb",
        "web_1f2e",
        "atb-aaaa-bbbb-1",
        "ATB-0000-0000-0-e0",
        "atb-0000-0000-0-z0",
        "atb-0000-0000-0-e0 ",
    ],
)
def test_any_other_is_foreign(text: str) -> None:
    assert parse_order_id(text) is None and not is_ours(text, ACCOUNT, "BTCUSDT")


@pytest.mark.parametrize(("candle_ms", "attempt"), [(1, 0), (-60_000, 0), (60_000, -1)])
def test_no_id_for_what_cannot_be(candle_ms: int, attempt: int) -> None:
    with pytest.raises(ValueError, match="opens at"):
        client_order_id(ACCOUNT, "BTCUSDT", candle_ms, "entry", attempt)
