"""What in docs/ is made from the program, and by what.

Manual pages and pictures are made as a whole. The pages of the reference are written by hand but
for what stands between two marks, which is made.
"""

from __future__ import annotations

import contextlib
import io
import tempfile
from collections.abc import Callable
from pathlib import Path

from parkingd.cli.ctl import main as ctl
from tests.docs import index, manual, objects, reference, wire

ROOT = Path(__file__).parents[2]

BEGIN = "<!-- made by python -m tests.docs -->\n"
END = "<!-- end of what is made -->\n"


def _inserted(path: str, make: Callable[[], str]) -> Callable[[], str]:
    """The page with what is made between its marks."""

    def page() -> str:
        before, _, rest = (ROOT / path).read_text(encoding="utf-8").partition(BEGIN)
        _, end, after = rest.partition(END)
        assert end, f"{path} lacks a mark"
        return f"{before}{BEGIN}\n{make()}\n\n{END}{after}"

    return page


def _picture() -> str:
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        file = Path(folder) / "top.svg"
        assert ctl(["top", "--demo", "--svg", str(file)]) == 0
        return file.read_text(encoding="utf-8")


MADE: dict[str, Callable[[], str]] = {
    "docs/man/parkingd.1": manual.parkingd_1,
    "docs/man/parkingd-ctl.1": manual.parkingd_ctl_1,
    "docs/reference-commands.md": _inserted("docs/reference-commands.md", reference.commands),
    "docs/reference-configuration.md": _inserted(
        "docs/reference-configuration.md", reference.configuration
    ),
    "docs/reference-json.md": _inserted("docs/reference-json.md", objects.kinds),
    "docs/reference-wire.md": _inserted("docs/reference-wire.md", wire.tables),
    "docs/top.svg": _picture,
    "docs/README.md": _inserted("docs/README.md", index.pages),
}
"""Path from the root -> its current text."""
