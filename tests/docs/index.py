"""The index of docs/: every page under its kind, with its title and its first sentence.

A page belongs to the kind that its name begins with, so a new page comes in by itself.
"""

from __future__ import annotations

import re
from pathlib import Path

FOLDER = Path(__file__).parents[2] / "docs"

KINDS = {
    "tutorial": "Learn it",
    "howto": "Do something",
    "reference": "Look something up",
    "explanation": "Understand it",
}
OTHERS = {"operations.md": "howto", "architecture.md": "explanation"}


def pages() -> str:
    """The lists, one for each kind."""
    lines: list[str] = []
    for kind, heading in KINDS.items():
        lines += ["", f"## {heading}", ""]
        for path in sorted(FOLDER.glob("*.md")):
            if OTHERS.get(path.name, path.name.split("-")[0].removesuffix(".md")) == kind:
                lines.append(_line(path))
    return "\n".join(lines).lstrip("\n")


def _line(path: Path) -> str:
    title, body = path.read_text(encoding="utf-8").removeprefix("# ").split("\n", 1)
    first = re.split(r"(?<=\.)\s", " ".join(body.split()), maxsplit=1)[0]
    return f"- [{title}]({path.name}): {first}"
