"""A progress bar on standard error, for people who wait."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn


@contextmanager
def progress_bar(size: int) -> Iterator[Callable[[int], None]]:
    """A function that takes note of bytes done; the bar is gone afterwards."""
    columns = (BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        bar = progress.add_task("import", total=size)
        yield lambda count: progress.advance(bar, count)
