"""The answers of one exchange, as the SuperLink has them: asked for in few calls, and none of them can end a run."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress

import structlog
from httpx import HTTPStatusError

from common.errors import ProtocolError
from common.flower import record_of, short_envelope, unpack

from flwr.proto.message_pb2 import Message as Head  # isort: skip
from flwr.common.constant import SUPERLINK_NODE_ID as SUPERLINK_NODE  # isort: skip
from flwr.proto.message_pb2 import (  # isort: skip
    ConfirmMessageReceivedRequest,
    ObjectTree,
    PullObjectRequest,
    PullObjectResponse,
)
from flwr.proto.runtime_pb2 import PullAppMessagesRequest  # isort: skip
from flwr.superlink.grid import HttpGrid  # isort: skip

_log = structlog.get_logger()

_REASON_LETTERS = 200
_FAILING_SECONDS = 10.0
_AWAY_SECONDS = 15.0
_ASKED_AT_ONCE = 32
"""Answers that may come in one call: of 2 MiB each, at most."""


class Mailbox:
    """The answers to one exchange's orders: those that are waited for, and those that are announced and on their way.

    Flower's `pull_messages` waits for minutes for a part that was announced and is never sent, and raises on a part
    that is not what it says, when the others' answers are already taken from the SuperLink: one site could end every
    run. Here a part is asked for once in each look, and only the one record is, which `unpack` reads. Short answers
    come with their heads, and are not confirmed: the SuperLink forgets a head that it has handed out. Where it fails
    at an answer, it is asked for each by itself, and the one at which it goes on failing for ten seconds is given up.

    Edge cases:
        The SuperLink drops an order to a node that is away at the moment, and an answer of it. Such a site is lost, and
        waited for a quarter of a minute: a node that is started again is back by then.

    Args:
        grid: Flower's.
        sites: Who is asked.
        sent: Site by the id of the message that holds its order; a node that has never connected is sent none yet.
    """

    def __init__(self, grid: HttpGrid, sites: Iterable[str], sent: Mapping[str, str]) -> None:
        self._calls = grid._runtime_client  # noqa: SLF001 - tests/client/test_app.py looks whether it is still there
        self._node, self._run_id = grid.node, grid.run.run_id
        self._missing = set(sites)
        self._silent = dict(sent)
        self._announced: dict[str, tuple[str, str]] = {}
        self._failing: dict[str, float] = {}
        self._lost: dict[str, float] = {}

    @property
    def missing(self) -> frozenset[str]:
        """Sites whose answer may still come."""
        return frozenset(self._missing)

    @property
    def lost(self) -> frozenset[str]:
        """Of them, those whose order was dropped: it must be sent again."""
        return frozenset(self._lost)

    def expect(self, sent: Mapping[str, str]) -> None:
        """Further messages with the same orders: one answer to any of them counts."""
        self._silent |= sent
        self._lost = {site: end for site, end in self._lost.items() if site not in sent.values()}

    def look(self) -> Iterator[tuple[str, bytes]]:
        """Answers that are whole since the last look; one a site."""
        for site, envelope in self._new():
            if site in self._missing:
                self._missing.discard(site)
                self._silent = {name: other for name, other in self._silent.items() if other != site}
                self._announced = {name: one for name, one in self._announced.items() if one[0] != site}
                if envelope is not None:
                    yield site, envelope
        self._missing -= {site for site, end in self._lost.items() if time.monotonic() > end}

    def _new(self) -> Iterator[tuple[str, bytes | None]]:
        """Answers, or None where a site's answer is none."""
        silent = list(self._silent)
        for start in range(0, len(silent), _ASKED_AT_ONCE):
            yield from self._hear(silent[start : start + _ASKED_AT_ONCE])
        for message_id, (site, record_id) in list(self._announced.items()):
            part = self._part(record_id)
            if part.object_available:
                self._confirm(message_id)
                yield site, _envelope_in(part.object_content, site)
            elif not part.object_found:
                del self._announced[message_id]
                if not self._has_more(site):
                    yield site, None

    def _part(self, record_id: str) -> PullObjectResponse:
        """A part as far as it is there; one at which the SuperLink fails is still on its way."""
        try:
            return self._calls.PullObject(PullObjectRequest(node=self._node, run_id=self._run_id, object_id=record_id))
        except HTTPStatusError:
            return PullObjectResponse(object_found=True)

    def _has_more(self, site: str) -> bool:
        """Whether another message to or from a site may still bring its answer."""
        return site in {*self._silent.values(), *(other for other, _ in self._announced.values())}

    def _hear(self, message_ids: list[str]) -> Iterator[tuple[str, bytes | None]]:
        """Give short answers, and take note of who has begun a long one."""
        for head, tree in self._pull(message_ids):
            site = self._silent.get(head.metadata.reply_to_message_id, "")
            if not site:
                continue
            if head.metadata.src_node_id == SUPERLINK_NODE:
                del self._silent[head.metadata.reply_to_message_id]
                self._lost[site] = time.monotonic() + _AWAY_SECONDS
                continue
            envelope, record_id = _content_of(head, tree, site)
            if record_id:
                del self._silent[head.metadata.reply_to_message_id]
                self._announced[head.metadata.message_id] = (site, record_id)
            else:
                yield site, envelope

    def _pull(self, message_ids: list[str]) -> Iterator[tuple[Head, ObjectTree]]:
        try:
            answer = self._calls.PullMessages(PullAppMessagesRequest(message_ids=message_ids))
        except HTTPStatusError as error:
            yield from self._pull_each(message_ids, error)
        else:
            for message_id in message_ids:
                self._failing.pop(message_id, None)
            yield from zip(answer.messages_list, answer.message_object_trees, strict=False)

    def _pull_each(self, message_ids: list[str], error: HTTPStatusError) -> Iterator[tuple[Head, ObjectTree]]:
        """The SuperLink has failed at some of these: at which, and is it for good?"""
        if len(message_ids) > 1:
            for message_id in message_ids:
                yield from self._pull([message_id])
            return
        (message_id,) = message_ids
        if time.monotonic() > self._failing.setdefault(message_id, time.monotonic()) + _FAILING_SECONDS:
            reason = f"the SuperLink fails at it: HTTP {error.response.status_code}"
            site = self._silent.pop(message_id, "")
            if not self._has_more(site):
                self._missing.discard(site)
            _log.warning("answer given up", site=site, reason=reason)

    def _confirm(self, message_id: str) -> None:
        """Tell the SuperLink that it may forget a message; where it does not hear it, the end of the run tells it."""
        with suppress(HTTPStatusError):
            self._calls.ConfirmMessageReceived(
                ConfirmMessageReceivedRequest(node=self._node, run_id=self._run_id, message_object_id=message_id)
            )


def _content_of(head: Head, tree: ObjectTree, site: str) -> tuple[bytes | None, str]:
    """The envelope in a message, or the name of the record that holds it; neither for one that is none of ours."""
    try:
        envelope = short_envelope(head)
        return envelope, "" if envelope is not None else record_of(tree)
    except ProtocolError as error:
        _log.warning("answer ignored", site=site, reason=str(head.error.reason)[:_REASON_LETTERS] or error.message)
        return None, ""


def _envelope_in(record: bytes, site: str) -> bytes | None:
    try:
        return unpack(record)
    except ProtocolError as error:
        _log.warning("answer ignored", site=site, reason=error.message)
        return None
