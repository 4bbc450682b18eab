"""Hospitals to attack: real sites with made-up numbers, of which one colludes, and every byte that they send."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from client.charges import Charges
from client.node import SiteNode
from client.secagg import SiteHalf
from client.session import SessionBook
from common.errors import TryAgainError
from common.identity import new_identity, public_name
from common.messages import Message, Order, Refusal
from common.plan import BaseIdentity, OptimizerConfig, Plan, PrivacyTerms, SecureAggregationConfig, TaskConfig
from common.secagg.keys import SessionSecret
from common.wire import KINDS, decode, encode

NAMES = ("east", "north", "south", "west")
COLLUDER = "west"
HONEST = NAMES[:3]
DIMENSION = 4
ROUNDS = 4


class PowerCut(BaseException):
    """What stops a hospital's process in the middle of its work; nothing in a site may catch it."""


@dataclass
class MadeUpNumbers:
    """Stands for training: new whole numbers at every call, kept so that an attack's find can be compared.

    Attributes:
        place: Of the hospital among the others; makes its numbers its own.
        given: What was given for each round, oldest first.
        trouble: Raised instead of the next numbers.
    """

    place: int
    given: list[tuple[int, npt.NDArray[np.int64]]] = field(default_factory=list)
    trouble: BaseException | None = None

    def train(self, order: Order) -> npt.NDArray[np.int64]:
        """As `client.node.Trainer`."""
        if self.trouble is not None:
            trouble, self.trouble = self.trouble, None
            raise trouble
        base = 1000 * (len(self.given) + 1) + 7**self.place
        numbers = np.array([base * place for place in range(1, DIMENSION + 1)], dtype=np.int64)
        self.given.append((order.round_number, numbers))
        return numbers


class Hospital:
    """One site as it is installed, in a folder of its own.

    Args:
        name: Of the site.
        plan: The plan that it agreed to.
        identity: Its key.
        folder: Empty, or that of the same site before.
    """

    def __init__(self, name: str, plan: Plan, identity: Ed25519PrivateKey, folder: Path) -> None:
        self.name, self.plan, self.identity, self.folder = name, plan, identity, folder
        self.trainer = MadeUpNumbers(NAMES.index(name))
        self.folder.mkdir(exist_ok=True)
        self.start()

    def start(self) -> None:
        """Start the process, or start it again: everything is read from the folder."""
        charges = Charges(self.folder, self.plan, self.name)
        half = SiteHalf(self.name, self.plan, self.identity, self._book())
        self.node = SiteNode(self.plan, self.trainer, charges, half, dimension=DIMENSION)

    def tell(self) -> SessionSecret:
        """What a colluding site tells: the secret that all its keys and shares follow from."""
        return self._book().secret

    def fail_once(self) -> None:
        """The next training gives nothing."""
        self.trainer.trouble = TryAgainError("the numbers did not come out")

    def cut_power_once(self) -> None:
        """The next training never ends."""
        self.trainer.trouble = PowerCut()

    def _book(self) -> SessionBook:
        return SessionBook(self.folder, self.plan.digest, self.name)


class Study:
    """Four hospitals, of which one may be missing from a round, and one (`west`) tells the coordinator all it knows.

    Attributes:
        sent: Every message that left a hospital, in bytes, with its name, oldest first.

    Args:
        folder: An existing, empty folder.
    """

    def __init__(self, folder: Path) -> None:
        identities = {name: new_identity() for name in NAMES}
        self.plan = make_plan({name: public_name(identity) for name, identity in identities.items()})
        self.hospitals = {name: Hospital(name, self.plan, key, folder / name) for name, key in identities.items()}
        self.sent: list[tuple[str, bytes]] = []

    def ask(self, name: str, message: Message) -> Message:
        """Send one message to one hospital, and read its answer."""
        answer = self.hospitals[name].node.answer(encode(message))
        self.sent.append((name, answer))
        return decode(answer, *KINDS.values())

    @property
    def refusals(self) -> list[str]:
        """The codes of all refusals, oldest first."""
        messages = (decode(frame, *KINDS.values()) for _, frame in self.sent)
        return [message.code for message in messages if isinstance(message, Refusal)]


def make_plan(roster: dict[str, str], dropouts: int = 1, threshold: int | None = None) -> Plan:
    """A plan of mode distributed for these hospitals; model and privacy play no part here."""
    return Plan(
        name="attacked",
        rounds=ROUNDS,
        sites=len(roster),
        roster=roster,
        base=BaseIdentity(name="none", files={"none": "0" * 64}),
        task=TaskConfig(labels=("no", "yes"), positive_label="yes"),
        optimizer=OptimizerConfig(learning_rate=0.1),
        privacy=PrivacyTerms(sampling_rate=0.1, divisor=1.0, noise_multiplier=1.0),
        secure_aggregation=SecureAggregationConfig(
            tolerated_dropouts=dropouts, tolerated_colluders=1, threshold=threshold
        ),
    )
