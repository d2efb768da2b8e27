"""The Policy's fields as command-line options, made from core.policy.FIELDS so that they are written once."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Annotated, Any

import typer

from atb.core.policy import FIELDS, Field, parse_partial_exits

_KINDS = {int: int, float: float, str: str}


def with_policy_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add an option for each field; the command receives those that were given as `policy_flags`."""

    def wrapped(**values: Any) -> None:
        given = {field.name: values.pop(field.name) for field in FIELDS}
        flags = {name: value for name, value in given.items() if value not in (None, [], ())}
        if "partial_exits" in flags:
            flags["partial_exits"] = parse_partial_exits(flags["partial_exits"])
        command(**values, policy_flags=flags)

    own = inspect.signature(command, eval_str=True)
    kept = [p for name, p in own.parameters.items() if name != "policy_flags"]
    added = [_parameter(field) for field in FIELDS]
    signature = own.replace(parameters=[*kept, *added])
    wrapped.__signature__ = signature  # type: ignore[attr-defined]
    wrapped.__annotations__ = {p.name: p.annotation for p in signature.parameters.values()}
    wrapped.__name__, wrapped.__doc__ = command.__name__, command.__doc__
    return wrapped


def _parameter(field: Field) -> inspect.Parameter:
    repeatable = field.name == "partial_exits"
    kind: Any = list[str] if repeatable else _KINDS[type(field.default)]
    option = typer.Option(
        field.flag,
        help=f"{field.help} [default: {_shown(field)}]",
        show_default=False,
        rich_help_panel=f"Policy, {field.group.lower()}",
        metavar="GAIN:SHARE" if repeatable else None,
    )
    annotation = Annotated[kind | None, option]
    return inspect.Parameter(field.name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)


def _shown(field: Field) -> str:
    return "none" if field.default == () else str(field.default)
