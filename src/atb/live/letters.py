"""The mode in letters that nobody overlooks."""

from __future__ import annotations

HEIGHT = 5
LETTERS = {
    "A": " ███ |█   █|█████|█   █|█   █",
    "E": "█████|█    |████ |█    |█████",
    "L": "█    |█    |█    |█    |█████",
    "M": "█   █|██ ██|█ █ █|█   █|█   █",
    "N": "█   █|██  █|█ █ █|█  ██|█   █",
    "O": " ███ |█   █|█   █|█   █| ███ ",
    "P": "████ |█   █|████ |█    |█    ",
    "R": "████ |█   █|████ |█  █ |█   █",
    "S": " ████|█    | ███ |    █|████ ",
    "T": "█████|  █  |  █  |  █  |  █  ",
    "Y": "█   █| █ █ |  █  |  █  |  █  ",
    " ": "  |  |  |  |  ",
}


def large(text: str, blocks: bool = True) -> list[str]:
    """Five rows of block letters; of # where a terminal has no blocks."""
    rows = [" ".join(LETTERS[letter].split("|")[i] for letter in text) for i in range(HEIGHT)]
    return rows if blocks else [row.replace("█", "#") for row in rows]
