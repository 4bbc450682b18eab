"""The ServerApp that the SuperLink runs, and the transport that carries sealed orders to hospitals over its grid.

The bundle that is submitted holds no code (`server.control.code_free_bundle`); it names `app` of this installed file.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import cast

import structlog
from httpx import HTTPStatusError

from common.errors import TransportError
from common.flower import MESSAGE_TYPE, Parcel, pack, parcel
from server.arrivals import Arrivals
from server.config import WaitingConfig, load_coordinator_config
from server.control import Control, Node, control_of
from server.enrolment import EnrolledSite
from server.home import CoordinatorHome
from server.mailbox import Mailbox
from server.pacing import Patience
from server.runs import run_of
from server.signed_plans import find_signed_plan
from server.submission import is_wanted

from flwr.app import Context, Message  # isort: skip
from flwr.clientapp import ClientApp  # isort: skip
from flwr.proto.message_pb2 import PushObjectRequest  # isort: skip
from flwr.proto.runtime_pb2 import PushAppMessagesRequest  # isort: skip
from flwr.serverapp import Grid, ServerApp  # isort: skip
from flwr.superlink.grid import HttpGrid  # isort: skip

_log = structlog.get_logger()

_GROWTH = 1.5
_BATCH_BYTES = 16 << 20

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
        lambda sites, waiting: _transport(cast(HttpGrid, grid), home, sites, waiting),
        resume=config["resume"] == "yes",
        wait_for_all=config["enough"] != "yes",
    )


def _transport(
    grid: HttpGrid, home: CoordinatorHome, sites: Iterable[EnrolledSite], waiting: WaitingConfig
) -> GridTransport:
    control, sites = control_of(home, load_coordinator_config(home.config)), tuple(sites)
    numbers = {name: node.node_id for name, node in _nodes_of(control, sites).items()}
    arrivals = Arrivals(lambda: {name: one.connected for name, one in _nodes_of(control, sites).items() if one.online})
    return GridTransport(grid, numbers, waiting, arrivals)


def _nodes_of(control: Control, sites: Iterable[EnrolledSite]) -> dict[str, Node]:
    """Each site's node, found by the key that enrolment registered.

    The grid itself names only the nodes that are online now, and a site may come later.
    """
    by_key = {node.public_key.strip(): node for node in control.nodes()}
    keys = {site.name: site.node_key.encode("ascii").strip() for site in sites}
    return {name: by_key[key] for name, key in keys.items() if key in by_key}


class GridTransport:
    """A `Transport` over Flower's grid.

    Guarantees:
        An exchange ends when every site has answered or `patience` has run out, whatever comes in. Answers to earlier
        exchanges are never asked for. No answer raises, whatever its bytes.

    Edge cases:
        A site that announces an answer and does not send it is one that is silent: the others are heard meanwhile.
        An order to a site that is away waits at the SuperLink until the exchange is over. One to a node that connected
        anew meanwhile may be lost, and is sent again, the same to the byte; one to a node that has never connected is
        not taken by the SuperLink, and sent once it has. Orders are held a few at a time: no more
        are added once they have `_BATCH_BYTES`.

    Args:
        grid: Flower's.
        nodes: Flower's number of each site's node.
        waiting: Pauses between two looks.
        arrivals: Who has connected anew.
    """

    def __init__(
        self, grid: HttpGrid, nodes: Mapping[str, int], waiting: WaitingConfig, arrivals: Arrivals | None = None
    ) -> None:
        self._grid = grid
        self._arrivals = arrivals or Arrivals(dict)
        self._nodes = dict(nodes)
        self._waiting = waiting
        self.patience = Patience(waiting.exchange_seconds, len(nodes), waiting.exchange_seconds)

    def exchange(self, orders: Mapping[str, bytes]) -> Iterator[tuple[str, bytes]]:
        """As `common.transport.Transport`.

        Raises:
            TransportError: When a site has no node, or the SuperLink fails at an order.
        """
        unknown = sorted(orders.keys() - self._nodes.keys())
        if unknown:
            raise TransportError(f"site {unknown[0]} has no node", hint="is it enrolled, and the service running?")
        started, enough_since, answered = time.monotonic(), None, 0
        self._arrivals.begin()
        mailbox = Mailbox(self._grid, orders, self._push(orders))
        pause = self._waiting.least_poll_seconds
        while mailbox.missing and time.monotonic() < self.patience.deadline(started, enough_since):
            time.sleep(pause)
            pause = min(pause * _GROWTH, self._waiting.most_poll_seconds)
            for site, envelope in mailbox.look():
                answered += 1
                if answered == self.patience.enough:
                    enough_since = time.monotonic()
                pause = self._waiting.least_poll_seconds
                yield site, envelope
            anew = self._arrivals.among(mailbox.missing, mailbox.lost)
            mailbox.expect(self._push({site: orders[site] for site in anew}))

    def _push(self, orders: Mapping[str, bytes]) -> dict[str, str]:
        """Send the orders, several at once where they are short; gives the site that each message id belongs to."""
        sent: dict[str, str] = {}
        for batch in _batches(orders):
            sent |= self._push_batch({site: parcel(self._message(site, order)) for site, order in batch.items()})
        return sent

    def _push_batch(self, sending: Mapping[str, Parcel]) -> dict[str, str]:
        """Send messages together, then upload the record of each that is too long to be in it.

        Raises:
            TransportError: When the SuperLink fails at it.
        """
        calls, parcels = self._grid._runtime_client, sending.values()  # noqa: SLF001 - as in `Mailbox`
        request = PushAppMessagesRequest(
            messages_list=[each.head for each in parcels], message_object_trees=[each.tree for each in parcels]
        )
        try:
            answer = calls.PushMessages(request)
            for each in parcels:
                if each.record_id in answer.objects_to_push:
                    calls.PushObject(self._upload(each, answer.session_id))
        except HTTPStatusError as error:
            rule = f"the SuperLink failed at an order: HTTP {error.response.status_code}"
            raise TransportError(rule, hint="its log says why: superlink.log; then `run --resume`") from None
        return {name: site for name, site in zip(answer.message_ids, sending, strict=False) if name}

    def _upload(self, sending: Parcel, session: str) -> PushObjectRequest:
        return PushObjectRequest(
            node=self._grid.node,
            run_id=self._grid.run.run_id,
            object_id=sending.record_id,
            object_content=sending.record,
            session_id=session,
        )

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
