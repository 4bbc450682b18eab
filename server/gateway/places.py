"""The places at the gateway: most are for enrolled nodes, and strangers make way for each other."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable

from server.gateway.limits import GatewayLimits

_FAMILIAR_ADDRESSES = 1024


class Place:
    """One connection's place: a stranger's, until an enrolled node was heard on it.

    Attributes:
        address: Group of the address that it is counted with.
        node: Key of the node that was heard; None for a stranger.
        on_evicted: Called when the place is given to another.
    """

    def __init__(self, places: Places, address: str) -> None:
        self._places = places
        self.address = address
        self.node: bytes | None = None
        self.on_evicted: Callable[[], object] = lambda: None

    def admit(self, node: bytes) -> bool:
        """Make it the place of a node that was heard, or say that there is none for it."""
        return self.node == node or self._places.admit(self, node)

    def leave(self) -> None:
        """Give the place back; twice is once."""
        self._places.leave(self)


class Places:
    """Counts connections, of strangers and of nodes apart.

    Guarantees:
        At most `connections` are in at once: `strangers` that have not shown an enrolled node's key, and the others of
        nodes. Whatever strangers do, the places of the nodes stay free for them. No stranger is turned away for one
        that came before: when all their places are taken, the one that came first makes way, of the address that has
        most; and of one address when it has its full part.

    Edge cases:
        Addresses from which a node was heard are remembered: a stranger from there, which may be that hospital's next
        connection, makes way last.

    Args:
        limits: How many of each kind.
    """

    def __init__(self, limits: GatewayLimits) -> None:
        self._limits = limits
        self._strangers: dict[Place, None] = {}  # in the order in which they came
        self._nodes: dict[Place, bytes] = {}
        self._familiar: OrderedDict[str, None] = OrderedDict()

    @property
    def taken(self) -> int:
        """Connections that are in."""
        return len(self._strangers) + len(self._nodes)

    def enter(self, address: str) -> Place:
        """Let one more in, as a stranger; another one may have to make way."""
        crowd = [place for place in self._strangers if place.address == address]
        if len(crowd) >= self._limits.strangers_per_address:
            self._evict(crowd[0])
        elif len(self._strangers) >= self._limits.strangers:
            self._evict(self._first_to_go())
        place = Place(self, address)
        self._strangers[place] = None
        return place

    def admit(self, place: Place, node: bytes) -> bool:
        """Give a stranger one of the nodes' places, within the parts of its address and its key."""
        if place not in self._strangers or not self._has_room(place.address, node):
            return False
        del self._strangers[place]
        self._nodes[place] = place.node = node
        self._familiar[place.address] = None
        self._familiar.move_to_end(place.address)
        if len(self._familiar) > _FAMILIAR_ADDRESSES:
            self._familiar.popitem(last=False)
        return True

    def leave(self, place: Place) -> None:
        """Give a place back, if it was not taken away."""
        self._strangers.pop(place, None)
        self._nodes.pop(place, None)

    def _has_room(self, address: str, node: bytes) -> bool:
        limits = self._limits
        return (
            len(self._nodes) < limits.connections - limits.strangers
            and sum(place.address == address for place in self._nodes) < limits.connections_per_address
            and sum(other == node for other in self._nodes.values()) < limits.connections_per_node
        )

    def _first_to_go(self) -> Place:
        crowds = Counter(place.address for place in self._strangers)
        return min(self._strangers, key=lambda place: (place.address in self._familiar, -crowds[place.address]))

    def _evict(self, place: Place) -> None:
        self.leave(place)
        place.on_evicted()
