"""Commands whose options are converted by a few lines of ours instead of pydantic.

Typer builds a pydantic adapter for each option of a command, left out or not: 60 ms for `atb backtest`, a quarter of a
short run. Options here are text, numbers, paths and lists of those, which need none (docs/adr/0003-start-up.md).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args, get_origin

import typer
from typer.core import TyperCommand, TyperGroup

_KINDS: dict[Any, str] = {str: "text", Path: "a path", int: "a whole number", float: "a number", bool: "a flag"}
_METAVARS: dict[Any, str] = {str: "TEXT", Path: "PATH", int: "N", float: "NUMBER"}


class _Lean:
    """Mixed into Typer's commands: whenever their parameters are asked for, they convert themselves."""

    def get_params(self, ctx: Any) -> list[Any]:
        params: list[Any] = super().get_params(ctx)  # type: ignore[misc]
        for param in params:
            _lighten(param)
        return params

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Arguments, then the options under the headings of their panels, which Typer shows with Rich only."""
        sections: dict[str, list[tuple[str, str]]] = {"Arguments": [], "Options": []}
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx)
            if record is None:
                continue
            if param.param_type_name == "argument":
                sections["Arguments"].append((record[0].split(" ")[0], record[1]))
            else:
                sections.setdefault(getattr(param, "rich_help_panel", None) or "Options", []).append(record)
        for heading, records in sections.items():
            if records:
                with formatter.section(heading):
                    formatter.write_dl(records)


class LeanCommand(_Lean, TyperCommand):
    """A Typer command that converts its plain options itself; use as `app.command(cls=LeanCommand)`."""


class LeanGroup(_Lean, TyperGroup):
    """The same for a group's own options; use as `typer.Typer(cls=LeanGroup)`."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        super().format_options(ctx, formatter)
        self.format_commands(ctx, formatter)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Each command with its first sentence, which goes on in a second line where Typer would cut it off."""
        commands = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        rows = [(name, c.get_short_help_str(limit=1000)) for name, c in commands if c is not None and not c.hidden]
        if rows:
            with formatter.section("Commands"):
                formatter.write_dl(rows)


def _lighten(param: Any) -> None:
    annotation = getattr(getattr(param, "type_descriptor", None), "annotation", None)
    many = get_origin(annotation) is list
    kind = get_args(annotation)[0] if many else annotation
    # Another Typer, without this attribute, keeps its own way of converting.
    if kind in _KINDS and hasattr(param, "_runtime_param"):
        param._runtime_param = PlainParam(kind, many)  # type: ignore[arg-type]
        if param.metavar is None and kind is not bool:
            param.metavar = param.name.upper() if param.param_type_name == "argument" else _METAVARS[kind]


class PlainParam:
    """Converts one option's text; stands in for Typer's own RuntimeParam."""

    def __init__(self, kind: type, many: bool) -> None:
        self.kind, self.many = kind, many

    def coerce(self, value: Any, param: Any, ctx: Any) -> Any:
        if self.many:
            return [self._convert(item, param, ctx) for item in value or ()]
        return value if value is None or isinstance(value, bool) else self._convert(value, param, ctx)

    def _convert(self, value: Any, param: Any, ctx: Any) -> Any:
        if self.kind is Path and not str(value):  # Path("") would be the folder one is in
            raise typer.BadParameter("an empty text is not a path.", ctx=ctx, param=param)
        try:
            return self.kind(value)
        except ValueError:
            raise typer.BadParameter(f"'{value}' is not {_KINDS[self.kind]}.", ctx=ctx, param=param) from None
