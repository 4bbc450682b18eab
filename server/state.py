"""What the coordinator knows, as frozen values. Nothing here belongs to one site."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from server.aggregation.base import Moments, Vector

Basis = npt.NDArray[np.float32]

FaultKind = Literal[
    "unreadable",
    "unknown-site",
    "wrong-site",
    "other-plan",
    "other-round",
    "wrong-shape",
    "out-of-range",
    "conflicting-reply",
    "bad-signature",
]
"""Why an answer was ignored.

unreadable: the bytes are no answer to what was asked: damaged, or late from an earlier exchange. unknown-site: a site
that was not asked. wrong-site: in another site's name. other-plan, other-round: late, or of another run. wrong-shape:
not as many values as the model has. out-of-range: a value is too large to be an update. conflicting-reply: a second,
different one from a site that was counted already. bad-signature: keys, a reply or a consent that the site did not
sign.
"""

AbortReason = Literal["", "too few inputs", "too few consents", "too few shares", "bad shares", "no session"]
"""Why secure aggregation gave up in a round; empty where it did not.

too few inputs: fewer sites than the threshold sent a masked vector. too few consents: fewer signed the survivors. too
few shares: fewer revealed what takes the masks off. bad shares: what was revealed fits no mask. no session: the sites'
keys could not be agreed on.
"""


@dataclass(frozen=True)
class Evaluation:
    """Figures of one model on a public set.

    Args:
        loss: Mean loss; the one figure that stopping and choosing look at.
        metrics: Further figures by name (`auc`, `accuracy`, `test_loss`, ...); one without a value is left out or NaN.
    """

    loss: float
    metrics: Mapping[str, float]


@dataclass(frozen=True)
class RoundSummary:
    """What one round did; all of it is public or made from the sum of noised updates.

    Args:
        round_number: From 1.
        survivors: Sites whose update was counted.
        applied: Whether they were enough; if not, the global model is the one of the round before.
        refusals: Number of sites by refusal code.
        faults: Number of ignored answers by `FaultKind`.
        update_norm: L2 norm of the change of the global model.
        group_norms: The same by group of trained values (`adapter`, `head`).
        validation: Of the new model; None without an evaluator, where nothing changed, or where it was not due.
        seconds: Wall-clock time of the round, its evaluation included.
        bytes_out: Bytes handed to the transport, all sites together.
        bytes_in: Bytes that came back.
        abort: Why secure aggregation gave up; the round is not applied then.
    """

    round_number: int
    survivors: int
    applied: bool
    refusals: Mapping[str, int]
    faults: Mapping[str, int]
    update_norm: float
    group_norms: Mapping[str, float]
    validation: Evaluation | None
    seconds: float
    bytes_out: int
    bytes_in: int
    abort: AbortReason = ""


@dataclass(frozen=True, eq=False)
class GlobalModel:
    """Trained values and, where the server changed them, the frozen LoRA matrices.

    Args:
        weights: float64 `[d]`; sites get them as float32.
        basis: float32 `[b]`; empty means as the plan's seed gives them.
    """

    weights: Vector = field(repr=False)
    basis: Basis = field(repr=False)


@dataclass(frozen=True, eq=False)
class BestModel:
    """The model with the lowest validation loss so far."""

    round_number: int
    loss: float
    model: GlobalModel


@dataclass(frozen=True, eq=False)
class ServerState:
    """Everything the next round depends on; saved after each round.

    Args:
        model: The global model now.
        moments: Of the server rule.
        recent: Last global models, oldest first, as many as the plan averages.
        best: None until a model was judged.
        history: One summary a round, from round 1 on.
    """

    model: GlobalModel
    moments: Moments = field(repr=False)
    recent: tuple[Vector, ...] = field(default=(), repr=False)
    best: BestModel | None = None
    history: tuple[RoundSummary, ...] = ()

    @property
    def round_number(self) -> int:
        """The last finished round; 0 before the first."""
        return len(self.history)


def as_json(value: Evaluation | RoundSummary) -> dict[str, Any]:
    """A summary as JSON has it: NaN and infinity, which JSON lacks, become null."""
    plain: dict[str, Any] = _finite(asdict(value))
    return plain


def _finite(value: Any) -> Any:  # noqa: ANN401 - any JSON value may stand there
    if isinstance(value, Mapping):
        return {name: _finite(item) for name, item in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value
