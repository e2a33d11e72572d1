"""What stands under which path of the ops port.

Every document is made of the node's own reports at the moment it is asked for, and none has a
plate in it: whoever may look at the health of a car park need not know who parks there.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Final, Protocol, TypeVar

from parkingd.adapters.document_values import Document, envelope
from parkingd.adapters.documents import to_document
from parkingd.adapters.ops.health import Check, degradations, live_checks, ready_checks, report
from parkingd.adapters.ops.http import Response
from parkingd.adapters.ops.metrics import CONTENT_TYPE, exposition
from parkingd.adapters.ops.sight import Inside, Sight
from parkingd.protocol.commands import Command, ReadLot, ReadMembers, ReadStatus
from parkingd.protocol.outcomes import ErrorCode, Failure, Lot, MemberList, Outcome, Status

JSON: Final = "application/json"
DEGRADED_HEADER: Final = "X-Parkingd-Degraded"

OutcomeT = TypeVar("OutcomeT", bound=Outcome)


class Unanswered(Exception):
    """The node said no, or said nothing in time."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.reason)
        self.failure = failure


class Desk(Protocol):
    """Where the routes ask."""

    @property
    def node(self) -> str:
        """The name of this node."""

    def inside(self) -> Inside:
        """What the daemon itself knows."""

    async def ask(self, command: Command, kind: type[OutcomeT]) -> OutcomeT:
        """One answer of the node. Raises Unanswered."""

    async def look(self) -> Sight:
        """All that the metrics show. Raises Unanswered."""


class Routes:
    """The paths of one daemon."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._paths: dict[str, Callable[[bool], Awaitable[Response]]] = {
            "/livez": self._livez,
            "/readyz": self._readyz,
            "/metrics": self._metrics,
            "/v1/status": self._status,
            "/v1/lot": self._lot,
        }

    async def answer(self, target: str) -> Response:
        """The response to a GET of this target: a path, and maybe ``?verbose``."""
        path, _, query = target.partition("?")
        page = self._paths.get(path)
        if page is None:
            text = f"404 Not Found: the paths are {', '.join(self._paths)}\n"
            return Response(HTTPStatus.NOT_FOUND, text.encode())
        words = {word.partition("=")[0] for word in query.split("&")}
        try:
            return await page("verbose" in words)
        except Unanswered as error:
            return self._json(error.failure, HTTPStatus.SERVICE_UNAVAILABLE)

    async def _livez(self, is_verbose: bool) -> Response:
        return _health("livez", live_checks(self._desk.inside()), [], is_verbose=is_verbose)

    async def _readyz(self, is_verbose: bool) -> Response:
        status = await self._desk.ask(ReadStatus(), Status)
        checks = ready_checks(self._desk.inside(), status)
        return _health("readyz", checks, degradations(status), is_verbose=is_verbose)

    async def _metrics(self, _: bool) -> Response:
        return Response(HTTPStatus.OK, exposition(await self._desk.look()), CONTENT_TYPE)

    async def _status(self, _: bool) -> Response:
        status = await self._desk.ask(ReadStatus(), Status)
        members = await self._desk.ask(ReadMembers(), MemberList)
        more = {"degraded": degradations(status), **to_document(members)[1]}
        return self._json(status, HTTPStatus.OK, more)

    async def _lot(self, _: bool) -> Response:
        return self._json(await self._desk.ask(ReadLot(), Lot), HTTPStatus.OK)

    def _json(self, outcome: Outcome, code: int, more: Document | None = None) -> Response:
        kind, body = to_document(outcome)
        at_ms = self._desk.inside().now.wall_ms
        document = envelope(kind, self._desk.node, at_ms, body | (more or {}))
        document.pop("conflict_plates", None)
        if document.get("lot") and isinstance(document["lot"], dict):
            del document["lot"]["conflict_plates"]
        text = json.dumps(document, sort_keys=True) + "\n"
        return Response(code, text.encode(), JSON)


def not_answered(timeout_s: float) -> Failure:
    """The node had no answer within this time: its disk is slow, or it takes over a record."""
    reason = f"no answer within {timeout_s:g} s"
    return Failure(ErrorCode.TIMED_OUT, reason, "see `parkingd-ctl status`")


def _health(of: str, checks: list[Check], degraded: list[str], *, is_verbose: bool) -> Response:
    """One word if all is well, every check if it is not, or if that was asked for."""
    is_well = not any(check.problem for check in checks)
    text = "ok\n" if is_well and not is_verbose else report(checks, degraded, of=of)
    headers = ((DEGRADED_HEADER, ", ".join(degraded)),) if degraded else ()
    code = HTTPStatus.OK if is_well else HTTPStatus.SERVICE_UNAVAILABLE
    return Response(code, text.encode(), headers=headers)
