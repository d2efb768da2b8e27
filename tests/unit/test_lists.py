"""Options that take lists never swallow an argument."""

from __future__ import annotations

import pytest

from atb.cli.lists import spread

SAME = ["--symbols", "A", "--symbols", "B", "--years", "2"]


@pytest.mark.parametrize("words", ["--symbols A B --years 2", "--symbols A,B --years 2", "--symbols=A,B --years 2",
                                   "--symbols A --symbols B --years 2", "--symbols A, B --years 2"])  # fmt: skip
def test_each_way_says_the_same(words: str) -> None:
    assert list(spread(words.split(), {"--symbols"}, many_words=True)) == SAME


def test_where_there_are_arguments_a_list_takes_one_word(words: str = "--symbols A,B 1h") -> None:
    assert list(spread(words.split(), {"--symbols"}, many_words=False)) == [*SAME[:4], "1h"]


@pytest.mark.parametrize("words", ["--symbols", "--symbols --years 2", "--years 2", "x --symbols A -- --symbols B"])
def test_what_is_no_list_stays_as_it_is(words: str) -> None:
    assert list(spread(words.split(), {"--symbols"}, many_words=True)) == words.split()
