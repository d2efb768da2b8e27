"""Folders of strategies and models: one that is missing is empty, one that may not be read is an error."""

from __future__ import annotations

from pathlib import Path

from atb.core.errors import StrategyError


def listed(folder: Path) -> list[Path]:
    """What is in a folder, by name; nothing where there is none. `Path.glob` would take an unreadable one for empty."""
    try:
        return sorted(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        hint = f"Make it readable (chmod u+rx '{folder}'), or work in another folder."
        raise StrategyError(f"The folder {folder} cannot be read: {error.strerror}.", hint) from None
