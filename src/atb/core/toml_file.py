"""A TOML file of the user's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from atb.core.errors import UsageError


def read_toml(path: Path) -> dict[str, Any]:
    """UsageError where it cannot be read, or is not TOML."""
    import tomllib

    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"{path.absolute()} cannot be read: {error}.") from None
