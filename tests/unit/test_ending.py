"""What ends a daemon: real signals to this process, and tasks, callbacks and threads that fail."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Awaitable, Callable, Iterator

import pytest

from parkingd.ending import Ending

NUMBERS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


@pytest.fixture(autouse=True)
def signals_as_before() -> Iterator[None]:
    """Whoever runs the tests may have them ignored, as nohup does."""
    before = [signal.signal(number, signal.SIG_DFL) for number in NUMBERS]
    yield
    for number, handler in zip(NUMBERS, before, strict=True):
        signal.signal(number, handler)


def ended_by(
    happening: Callable[[Ending], Awaitable[None]], *, is_serving: bool = True
) -> tuple[bool, int]:
    """Whether the daemon has ended after this, and how often its node was asked to leave.

    Raises what ended it."""
    asked: list[None] = []

    async def run() -> bool:
        ending = Ending(asyncio.get_running_loop(), lambda: asked.append(None))
        ending.is_serving = is_serving
        with ending.watching_threads():
            await happening(ending)
        if ending.has_come:
            await ending.wait()
        return ending.has_come

    return asyncio.run(run()), len(asked)


async def sent(*numbers: signal.Signals) -> None:
    """These signals, each heard before the next."""
    for number in numbers:
        os.kill(os.getpid(), number)
        await asyncio.sleep(0.01)  # The loop reads them from a pipe.


@pytest.mark.parametrize("number", NUMBERS)
def test_the_first_signal_asks_the_node_to_leave(number: signal.Signals) -> None:
    assert ended_by(lambda _: sent(number)) == (False, 1)


def test_a_second_one_ends_it_at_once() -> None:
    assert ended_by(lambda _: sent(signal.SIGTERM, signal.SIGTERM)) == (True, 1)
    assert ended_by(lambda _: sent(signal.SIGHUP, signal.SIGINT)) == (True, 1)


def test_a_terminal_that_is_gone_twice_is_no_haste() -> None:
    assert ended_by(lambda _: sent(signal.SIGHUP, signal.SIGHUP)) == (False, 1)


def test_before_anybody_knows_of_the_node_one_signal_is_enough() -> None:
    assert ended_by(lambda _: sent(signal.SIGTERM), is_serving=False) == (True, 0)


def test_under_nohup_the_terminal_is_nothing_to_it() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    assert ended_by(lambda _: sent(signal.SIGHUP)) == (False, 0)


def fail() -> None:
    raise LookupError("a bug")


async def a_task_fails(ending: Ending) -> None:
    async def failing() -> None:
        fail()

    task = asyncio.get_running_loop().create_task(failing())
    task.add_done_callback(ending.task_ended)
    await asyncio.wait([task])
    await asyncio.sleep(0)


async def a_callback_fails(_: Ending) -> None:
    asyncio.get_running_loop().call_soon(fail)
    await asyncio.sleep(0)


async def a_thread_fails(_: Ending) -> None:
    thread = threading.Thread(target=fail)
    thread.start()
    thread.join()
    await asyncio.sleep(0)


@pytest.mark.parametrize("happening", [a_task_fails, a_callback_fails, a_thread_fails])
def test_what_fails_ends_it_with_its_error(
    happening: Callable[[Ending], Awaitable[None]],
) -> None:
    with pytest.raises(LookupError, match="a bug"):
        ended_by(happening)


def test_a_task_that_was_cancelled_is_no_failure() -> None:
    async def cancelled(ending: Ending) -> None:
        task = asyncio.get_running_loop().create_task(asyncio.sleep(60))
        task.add_done_callback(ending.task_ended)
        task.cancel()
        await asyncio.wait([task])
        await asyncio.sleep(0)

    assert ended_by(cancelled) == (False, 0)
