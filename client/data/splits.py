"""Parts of one data set that share no patient."""

from __future__ import annotations

import numpy as np

from common.errors import ConfigError
from common.randomness import public_generator
from common.records.records import Records


def split_by_patient(records: Records, fraction: float, seed: int) -> tuple[Records, Records]:
    """Hold out a fraction of the patients with all their rows.

    Guarantees:
        Every row is in exactly one part, no patient is in both, neither part is empty, rows keep their order, and the
        same records, fraction and seed give the same parts.

    Args:
        records: What to split.
        fraction: Share of the patients to hold out, between 0 and 1.
        seed: Public seed.

    Returns:
        The rest and the held-out part.

    Raises:
        ConfigError: For a fraction outside (0, 1) or fewer than two patients.
    """
    if not 0 < fraction < 1:
        raise ConfigError(
            f"the held-out fraction must lie between 0 and 1, not {fraction}", hint="0.1 is a usual choice"
        )
    if records.patient_count < 2:
        raise ConfigError(
            "data of fewer than two patients cannot be split by patient", hint="give a separate file instead"
        )
    count = min(max(round(fraction * records.patient_count), 1), records.patient_count - 1)
    order = public_generator(seed, "split by patient").permutation(records.patient_count)
    held = np.zeros(records.patient_count, dtype=np.bool_)
    held[order[:count]] = True
    row_is_held = held[records.patients]
    return records.select(np.flatnonzero(~row_is_held)), records.select(np.flatnonzero(row_is_held))
