"""What a round brings in, however it was brought in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt

from server.aggregation.base import Vector
from server.state import AbortReason


@dataclass(frozen=True, eq=False)
class Gathered:
    """The sum over the survivors of a round.

    Attributes:
        total: What the server rule is given, `[d]`: the sum of updates, or in mode distributed the mean gradient; None
            when nothing may be used.
        survivors: Sites in it.
        refusals: Number of sites by refusal code.
        faults: Number of ignored answers by `FaultKind`.
        bytes_out: Bytes handed to the transport, all sites together.
        bytes_in: Bytes that came back.
        abort: Why secure aggregation gave up; empty when it did not.
    """

    total: Vector | None = field(repr=False)
    survivors: int
    refusals: Mapping[str, int]
    faults: Mapping[str, int]
    bytes_out: int
    bytes_in: int
    abort: AbortReason = ""


class Gatherer(Protocol):
    """Asks the sites for one round's work and adds it up."""

    def gather(self, round_number: int, weights: npt.NDArray[np.float32], basis: npt.NDArray[np.float32]) -> Gathered:
        """Send a model to the sites and bring in the sum.

        Guarantees:
            The same round and model give the same orders, byte for byte, also after a restart, so that a site that
            answered before gives its stored answer again. No answer, whatever its bytes, raises.

        Args:
            round_number: From 1.
            weights: The global model, `[d]`.
            basis: The frozen LoRA matrices where the server has changed them, `[b]`, or empty.
        """
        ...
