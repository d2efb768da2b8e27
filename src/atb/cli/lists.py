"""Options that take several words: `--symbols A B`, `--symbols A,B` and `--symbols A --symbols B` say the same."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Any

from atb.cli.lean import LeanCommand


class ListCommand(LeanCommand):
    """Its repeatable options take lists. Words after the first belong to a list only where the command has no positional
    arguments, which it would swallow; with these, a list is written with commas or by repeating its option."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        params = self.get_params(ctx)
        names = {name for param in params if getattr(param, "multiple", False) for name in param.opts}
        has_arguments = any(param.param_type_name == "argument" for param in params)
        return super().parse_args(ctx, list(spread(args, names, many_words=not has_arguments)))


def spread(args: Sequence[str], names: Collection[str], *, many_words: bool) -> Iterator[str]:
    """The same arguments with each value of a list after its own option."""
    words = iter(args)
    inside = ""
    first = False
    for word in words:
        if word == "--":
            yield word
            yield from words
            return
        option, equals, value = word.partition("=")
        if option in names:
            inside, first = option, True
            if equals:
                yield from _each(option, value)
                first = False
            continue
        if inside and not word.startswith("-") and (first or many_words):
            yield from _each(inside, word)
            first = False
            continue
        if inside and first:
            yield inside  # without a value: said by whoever reads the options
        inside = ""
        yield word
    if inside and first:
        yield inside


def _each(option: str, text: str) -> Iterator[str]:
    for value in [value for value in text.split(",") if value] or [text]:
        yield option
        yield value
