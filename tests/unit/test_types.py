"""Symbols: every spelling that people use, in the exchange's own."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atb.core.errors import UsageError, nearest
from atb.core.types import QUOTES, Symbol, split_name, symbol_for

bases = st.text("ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789", min_size=1, max_size=8)
quotes = st.sampled_from(QUOTES)


@given(bases, quotes, st.sampled_from("/-_"))
def test_a_separated_name_is_taken_apart(base: str, quote: str, separator: str) -> None:
    assert split_name(f" {base.lower()}{separator}{quote} ") == (base, quote)


@given(bases, quotes)
def test_a_joined_name_ends_with_a_known_quote(base: str, quote: str) -> None:
    found = split_name(base + quote)
    assert "".join(found) == base + quote
    assert found[1] in QUOTES


@pytest.mark.parametrize(
    ("name", "base", "quote"),
    [
        ("BTCUSDT", "BTC", "USDT"),
        ("ETHBTC", "ETH", "BTC"),
        ("BTCUSD", "BTC", "USD"),
        ("1000SATSUSDT", "1000SATS", "USDT"),
    ],
)
def test_joined_names(name: str, base: str, quote: str) -> None:
    assert split_name(name) == (base, quote)


@pytest.mark.parametrize("name", ["BTCUSDT", "BTC-USDT", "btc/usdt", "btc_usdt"])
def test_a_venue_s_own_spelling(name: str) -> None:
    assert symbol_for("binance", name) == Symbol("BTCUSDT", "BTC", "USDT")
    assert symbol_for("coinbase", name) == Symbol("BTC-USDT", "BTC", "USDT")
    assert symbol_for("coinbase", name).ccxt == "BTC/USDT"
    assert symbol_for("binance", name).market == "spot"


@pytest.mark.parametrize(
    "name", ["", " ", "BTC", "USDT", "BTC-", "-USD", "BTC/USD/T", "../../etc", "BTC USDT", "BTC;USDT"]
)
def test_what_is_no_symbol_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="is not a symbol") as caught:
        split_name(name)
    assert "BTC" in caught.value.hint


def test_a_bare_coin_is_answered_with_its_pairs() -> None:
    with pytest.raises(UsageError) as caught:
        split_name("sol")
    assert "SOLUSDT" in caught.value.hint


def test_a_perpetual_is_refused_as_such() -> None:
    with pytest.raises(UsageError, match="only spot"):
        split_name("BTC/USDT:USDT")


@given(st.text(max_size=12))
def test_any_text_is_a_symbol_safe_for_a_folder_or_refused(text: str) -> None:
    try:
        found = symbol_for("coinbase", text)
    except UsageError:
        return
    assert "/" not in found.id and "." not in found.id and "\\" not in found.id and "\0" not in found.id


def test_nearest_names() -> None:
    known = ["binance", "coinbase", "file", "simulated"]
    assert nearest("binanse", known).startswith("Nearest: binance")
    assert nearest("BINANCE", known).startswith("Nearest: binance")
    assert nearest("zzzz", known) == "Known: binance, coinbase, file, simulated."
    assert nearest("zzzz", [f"n{i}" for i in range(20)]).endswith(", ...")
