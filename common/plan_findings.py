"""What a plan promises, as findings: its cost in ε, and from whom each hospital's numbers are hidden."""

from __future__ import annotations

import math

from common.findings import Finding
from common.plan import Plan
from common.privacy.accountant import epsilon
from common.privacy.mechanism import mechanism_of

_WEAK_EPSILON = 10.0


def check_privacy(plan: Plan) -> Finding:
    """What the whole run costs each hospital's patients."""
    spent = epsilon(mechanism_of(plan))
    terms = plan.privacy
    sentence = (
        f"ε = {spent:.2f} at δ = {terms.delta:g} for each {terms.unit} of each hospital "
        f"(σ = {terms.noise_multiplier:g}, q = {terms.sampling_rate:g}, {plan.steps} steps)"
    )
    if not math.isfinite(spent):
        return Finding("fail", "privacy", "noise_multiplier is 0: there is no privacy at all", "set privacy.epsilon")
    if spent > _WEAK_EPSILON:
        return Finding("warn", "privacy", sentence, f"ε above {_WEAK_EPSILON:g} promises little; lower privacy.epsilon")
    return Finding("pass", "privacy", sentence)


def check_masks(plan: Plan) -> Finding:
    """From whom a hospital's numbers are hidden, and what happens when sites are missing."""
    if not plan.masked:
        return Finding("pass", "masks", "none: the coordinator reads each hospital's noised update by itself")
    n, d, c, t = plan.sites, plan.parameters.dropouts, plan.parameters.colluders, plan.parameters.threshold
    sentence = f"only the sum of at least {t} of {n} hospitals can be read; {d} may drop out, and {c} may collude"
    if plan.mode == "per-site":
        return Finding("pass", "masks", sentence)
    excess = mechanism_of(plan).noise_excess(n)
    sentence += f"; with all of them there, the noise is {excess:.2f} times what ε is computed from"
    if c == 0:
        hint = "set secure_aggregation.tolerated_colluders to 1: each hospital can take its own noise off the sum"
        return Finding("warn", "masks", f"{sentence}; ε holds against the coordinator, not against a hospital", hint)
    return Finding("pass", "masks", sentence)


def time_text(seconds: float) -> str:
    """A time in the unit that reads best."""
    if seconds < 1:
        return "1 s"
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.0f} h"


def size_text(count: float) -> str:
    """Bytes in the unit that reads best."""
    for unit in ("bytes", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "bytes" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"
