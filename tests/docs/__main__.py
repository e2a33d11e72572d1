"""``python -m tests.docs``: write anew whatever in docs/ is made from the program, and say what.

``--check`` writes nothing and exits with status 1 when something is not current.
"""

from __future__ import annotations

import sys

from tests.docs.pages import MADE, ROOT


def main(arguments: list[str]) -> int:
    stale = [path for path, make in MADE.items() if make() != _there(path)]
    for path in stale:
        if arguments != ["--check"]:
            (ROOT / path).parent.mkdir(parents=True, exist_ok=True)
            (ROOT / path).write_text(MADE[path](), encoding="utf-8")
        print(path)
    if not stale:
        print("everything is current")
    return 1 if stale and arguments == ["--check"] else 0


def _there(path: str) -> str | None:
    file = ROOT / path
    return file.read_text(encoding="utf-8") if file.exists() else None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
