"""The ServerApp that the SuperLink runs, and the transport that carries sealed orders to hospitals over its grid.

The bundle that is submitted holds no code (`server.control.code_free_bundle`); it names `app` of this installed file.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import cast

import structlog

from common.errors import ProtocolError, TransportError
from common.flower import MESSAGE_TYPE, Parcel, pack, parcel, record_of, short_envelope, unpack
from server.config import WaitingConfig, load_coordinator_config
from server.control import control_of
from server.enrolment import EnrolledSite
from server.home import CoordinatorHome
from server.pacing import Patience
from server.runs import run_of
from server.signed_plans import find_signed_plan
from server.submission import is_wanted

from flwr.app import Context, Message  # isort: skip
from flwr.clientapp import ClientApp  # isort: skip
from flwr.proto.message_pb2 import Message as Head  # isort: skip
from flwr.proto.message_pb2 import (  # isort: skip
    ConfirmMessageReceivedRequest,
    ObjectTree,
    PullObjectRequest,
    PushObjectRequest,
)
from flwr.proto.runtime_pb2 import PullAppMessagesRequest, PushAppMessagesRequest  # isort: skip
from flwr.serverapp import Grid, ServerApp  # isort: skip
from flwr.superlink.grid import HttpGrid  # isort: skip

_log = structlog.get_logger()

_GROWTH = 1.5
_BATCH_BYTES = 16 << 20
_ASKED_AT_ONCE = 32
"""Answers that may come in one call: of 2 MiB each, at most."""

app = ServerApp()
no_client_app = ClientApp()
"""Flower wants one to be named. It has no handler, and no hospital's node ever loads it."""


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Conduct the run that the coordinator's folder describes."""
    from server.launch import launch  # noqa: PLC0415 - torch comes in here, not when this file is named

    config = context.run_config
    home = CoordinatorHome(Path(str(config["home"])))
    if not is_wanted(run_of(home, find_signed_plan(home, str(config["plan"]))), context.run_id):
        return
    launch(
        home,
        str(config["plan"]),
        lambda sites, waiting: GridTransport(cast(HttpGrid, grid), _nodes_of(home, sites), waiting),
        resume=config["resume"] == "yes",
        wait_for_all=config["enough"] != "yes",
    )


def _nodes_of(home: CoordinatorHome, sites: Iterable[EnrolledSite]) -> dict[str, int]:
    """Flower's number of each site's node, found by the key that enrolment registered.

    The grid itself names only the nodes that are online now, and a site may come later.
    """
    control = control_of(home, load_coordinator_config(home.config))
    by_key = {node.public_key.strip(): node.node_id for node in control.nodes()}
    keys = {site.name: site.node_key.encode("ascii").strip() for site in sites}
    return {name: by_key[key] for name, key in keys.items() if key in by_key}


class GridTransport:
    """A `Transport` over Flower's grid.

    Guarantees:
        An exchange ends when every site has answered or `patience` has run out, whatever comes in. Answers to earlier
        exchanges are never asked for. No answer raises, whatever its bytes.

    Edge cases:
        A site that announces an answer and does not send it is one that is silent: the others are heard meanwhile.
        An order to a site that is away waits at the SuperLink until the exchange is over. Orders are held a few at a
        time: no more are added once they have `_BATCH_BYTES`.

    Args:
        grid: Flower's.
        nodes: Flower's number of each site's node.
        waiting: Pauses between two looks.
    """

    def __init__(self, grid: HttpGrid, nodes: Mapping[str, int], waiting: WaitingConfig) -> None:
        self._grid = grid
        self._nodes = dict(nodes)
        self._waiting = waiting
        self.patience = Patience(waiting.exchange_seconds, len(nodes), waiting.exchange_seconds)

    def exchange(self, orders: Mapping[str, bytes]) -> Iterator[tuple[str, bytes]]:
        """As `common.transport.Transport`.

        Raises:
            TransportError: When a site has no node, or the SuperLink takes no order at all.
        """
        unknown = sorted(orders.keys() - self._nodes.keys())
        if unknown:
            raise TransportError(f"site {unknown[0]} has no node", hint="is it enrolled, and the service running?")
        started, enough_since, answered = time.monotonic(), None, 0
        mailbox = _Mailbox(self._grid, self._push(orders))
        pause = self._waiting.least_poll_seconds
        while mailbox.expects and time.monotonic() < self.patience.deadline(started, enough_since):
            time.sleep(pause)
            pause = min(pause * _GROWTH, self._waiting.most_poll_seconds)
            for site, envelope in mailbox.look():
                answered += 1
                if answered == self.patience.enough:
                    enough_since = time.monotonic()
                pause = self._waiting.least_poll_seconds
                yield site, envelope

    def _push(self, orders: Mapping[str, bytes]) -> dict[str, str]:
        """Send the orders, several at once where they are short; gives the site that each message id belongs to."""
        sent: dict[str, str] = {}
        for batch in _batches(orders):
            sent |= self._push_batch({site: parcel(self._message(site, order)) for site, order in batch.items()})
        if orders and not sent:
            raise TransportError("the SuperLink took no order", hint="its log says why: superlink.log")
        return sent

    def _push_batch(self, sending: Mapping[str, Parcel]) -> dict[str, str]:
        """Send messages together, then upload the record of each that is too long to be in it."""
        calls, parcels = self._grid._runtime_client, sending.values()  # noqa: SLF001 - as in `_Mailbox`
        answer = calls.PushMessages(
            PushAppMessagesRequest(
                messages_list=[each.head for each in parcels], message_object_trees=[each.tree for each in parcels]
            )
        )
        for each in parcels:
            if each.record_id in answer.objects_to_push:
                calls.PushObject(
                    PushObjectRequest(
                        node=self._grid.node,
                        run_id=self._grid.run.run_id,
                        object_id=each.record_id,
                        object_content=each.record,
                        session_id=answer.session_id,
                    )
                )
        return {name: site for name, site in zip(answer.message_ids, sending, strict=False) if name}

    def _message(self, site: str, order: bytes) -> Message:
        lives = self.patience.seconds + 1.0
        return Message(pack(order), dst_node_id=self._nodes[site], message_type=MESSAGE_TYPE, ttl=lives)


def _batches(orders: Mapping[str, bytes]) -> Iterator[dict[str, bytes]]:
    """Orders that go out together: a call to the SuperLink costs more than a short order. Each is asked for once."""
    batch: dict[str, bytes] = {}
    for site in orders:
        batch[site] = orders[site]
        if sum(map(len, batch.values())) >= _BATCH_BYTES:
            yield batch
            batch = {}
    if batch:
        yield batch


class _Mailbox:
    """The answers to one exchange's orders: those that are waited for, and those that are announced and on their way.

    Flower's `pull_messages` waits for minutes for a part that was announced and is never sent, and raises on a part
    that is not what it says, when the others' answers are already taken from the SuperLink: one site could end every
    run. Here a part is asked for once in each look, and only the one record is, which `unpack` reads. Short answers
    come with their heads, and are not confirmed: the SuperLink forgets a head that it has handed out.

    Args:
        grid: Flower's.
        sent: Site by the id of the message that holds its order.
    """

    def __init__(self, grid: HttpGrid, sent: Mapping[str, str]) -> None:
        self._calls = grid._runtime_client  # noqa: SLF001 - tests/client/test_app.py looks whether it is still there
        self._node, self._run_id = grid.node, grid.run.run_id
        self._silent = dict(sent)
        self._announced: dict[str, tuple[str, str]] = {}

    @property
    def expects(self) -> bool:
        """Whether an answer may still come."""
        return bool(self._silent or self._announced)

    def look(self) -> Iterator[tuple[str, bytes]]:
        """Answers that are whole since the last look."""
        silent = list(self._silent)
        for start in range(0, len(silent), _ASKED_AT_ONCE):
            yield from self._hear(silent[start : start + _ASKED_AT_ONCE])
        for message_id, (site, record_id) in list(self._announced.items()):
            part = self._calls.PullObject(PullObjectRequest(node=self._node, run_id=self._run_id, object_id=record_id))
            if part.object_found and not part.object_available:
                continue
            del self._announced[message_id]
            self._confirm(message_id)
            envelope = _envelope_in(part.object_content, site)
            if envelope is not None:
                yield site, envelope

    def _hear(self, message_ids: list[str]) -> Iterator[tuple[str, bytes]]:
        """Give short answers, and take note of who has begun a long one; an order has one answer."""
        answer = self._calls.PullMessages(PullAppMessagesRequest(message_ids=message_ids))
        for head, tree in zip(answer.messages_list, answer.message_object_trees, strict=True):
            site = self._silent.pop(head.metadata.reply_to_message_id, "")
            envelope, record_id = _content_of(head, tree, site)
            if site and envelope is not None:
                yield site, envelope
            elif site and record_id:
                self._announced[head.metadata.message_id] = (site, record_id)
            else:
                self._confirm(head.metadata.message_id)

    def _confirm(self, message_id: str) -> None:
        """Tell the SuperLink that it may forget a message."""
        self._calls.ConfirmMessageReceived(
            ConfirmMessageReceivedRequest(node=self._node, run_id=self._run_id, message_object_id=message_id)
        )


def _content_of(head: Head, tree: ObjectTree, site: str) -> tuple[bytes | None, str]:
    """The envelope in a message, or the name of the record that holds it; neither for one that is none of ours."""
    try:
        envelope = short_envelope(head)
        return envelope, "" if envelope is not None else record_of(tree)
    except ProtocolError as error:
        _log.warning("answer ignored", site=site, reason=str(head.error.reason) or error.message)
        return None, ""


def _envelope_in(record: bytes, site: str) -> bytes | None:
    try:
        return unpack(record)
    except ProtocolError as error:
        _log.warning("answer ignored", site=site, reason=error.message)
        return None
