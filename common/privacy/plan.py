"""The one object that holds what sampler, clipper, noise and accountant must agree on."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal, Self

import dp_accounting
import numpy as np
import numpy.typing as npt

from common.errors import ConfigError, Problem
from common.plan import PrivacyConfig, PrivacyTerms, Unit

# Far from under- and overflow of a float64, so that clip_norm / 2^grid_bits is exact and never zero.
_CLIP_NORM_RANGE = (1e-100, 1e100)

Noise = Literal["gaussian", "skellam"]

LARGEST_GAUSSIAN_SCALE = 2.0**49
"""A draw never exceeds 12 standard deviations (client/training/noise.py); 12 * 2^49 < 2^53, so that every draw is an
integer which a float64 holds exactly."""

LARGEST_SKELLAM_SCALE = 2.0**20
"""A site draws its share from a table of 12 standard deviations (client/training/skellam.py): 100 MiB at this limit."""

_LARGEST_SCALE: dict[Noise, float] = {"gaussian": LARGEST_GAUSSIAN_SCALE, "skellam": LARGEST_SKELLAM_SCALE}
# The share of a plan at the limit must not fall beyond it by the rounding of a square root.
_ROUNDING = 1 + 1e-12

# Less is no privacy in all but name (ε in the thousands a step), and its ε cannot be computed.
_LEAST_NOISE = 0.01


@dataclass(frozen=True)
class PrivacyPlan:
    """The mechanism of a run in public constants; every part of a DP step reads them from here.

    Guarantees:
        The accountant reads exactly the mechanism that sampler, clipper and noise run: Poisson sampling with
        `sampling_rate`, an integer sum in which adding or removing one unit moves the L2 norm by at most
        `clip_bound`, and noise of standard deviation `noise_scale` = `noise_multiplier` * `clip_bound`. With gaussian
        noise one site draws all of it. With skellam noise `noise_shares` sites draw `share_scale` each; Skellam shares
        add up exactly, so that the sum of so many honest shares is the noise that is accounted.
        No field may depend on a record; the divisor and the sampling rate above all are constants of the plan.

    Edge cases:
        `noise_multiplier` 0 is no privacy (the accountant says infinity); `sampling_rate` 1 takes every unit;
        `steps` 0 releases nothing.

    Args:
        unit: Whose presence is hidden: a patient at one site, or one record.
        sampling_rate: q in (0, 1], the probability that a unit takes part in a step.
        steps: T, noisy steps of the whole run at one site.
        clip_norm: C, L2 bound on one unit's summed gradient.
        noise_multiplier: σ, standard deviation of the noise over `clip_norm`.
        divisor: D, the public constant that the noisy sum is divided by.
        delta: δ of (ε, δ).
        grid_bits: b; `clip_norm` is 2^b steps of the integer grid.
        noise: gaussian (mode per-site) or skellam (mode distributed).
        noise_shares: n - d - c, honest shares that are present whatever happens; 1 for gaussian noise.

    Raises:
        ConfigError: With every value that is out of its range.
    """

    unit: Unit
    sampling_rate: float
    steps: int
    clip_norm: float
    noise_multiplier: float
    divisor: float
    delta: float
    grid_bits: int
    noise: Noise = "gaussian"
    noise_shares: int = 1

    def __post_init__(self) -> None:
        problems = tuple(_problems(self))
        if problems:
            raise ConfigError("the privacy mechanism cannot be built from these constants", problems)

    @classmethod
    def from_config(
        cls,
        privacy: PrivacyConfig,
        noise_multiplier: float,
        steps: int,
        *,
        noise: Noise = "gaussian",
        noise_shares: int = 1,
    ) -> Self:
        """The mechanism of a draft under a noise multiplier that is still being chosen."""
        return cls(
            unit=privacy.unit,
            sampling_rate=privacy.sampling_rate,
            steps=steps,
            clip_norm=privacy.clip_norm,
            noise_multiplier=noise_multiplier,
            divisor=privacy.divisor,
            delta=privacy.delta,
            grid_bits=privacy.grid_bits,
            noise=noise,
            noise_shares=noise_shares,
        )

    @classmethod
    def from_terms(cls, terms: PrivacyTerms, steps: int, *, noise: Noise = "gaussian", noise_shares: int = 1) -> Self:
        """The mechanism of a finished plan over `steps` noisy steps at one site."""
        return cls.from_config(terms, terms.noise_multiplier, steps, noise=noise, noise_shares=noise_shares)

    @property
    def clip_bound(self) -> int:
        """L2 bound on one unit's contribution, in steps of the integer grid."""
        return int(2**self.grid_bits)

    @property
    def grid_step(self) -> float:
        """Length of one step of the integer grid, in units of the gradient; exact, a power of two below `clip_norm`."""
        return math.ldexp(self.clip_norm, -self.grid_bits)

    @property
    def noise_scale(self) -> float:
        """Standard deviation of the whole noise that is accounted, in steps of the integer grid."""
        return math.ldexp(self.noise_multiplier, self.grid_bits)

    @property
    def share_scale(self) -> float:
        """Standard deviation of what one site adds, in steps of the integer grid."""
        return self.noise_scale / math.sqrt(self.noise_shares)

    @property
    def share_variance(self) -> float:
        """Variance of what one site adds, in squared steps of the integer grid: σ²·4^b / (n - d - c)."""
        return self.noise_scale**2 / self.noise_shares

    @property
    def share_reach(self) -> int:
        """A bound that no value of what one site adds ever exceeds, in steps of the integer grid; a public constant.

        Draws end where a tail of 2^-105 is left. By the Chernoff bound that is within 147 + 13 standard deviations for
        Skellam noise (the first term matters for small ones), and 11.8 standard deviations out for Gaussian noise.
        """
        return math.ceil(13 * self.share_scale) + 147 if self.noise_multiplier else 0

    def with_shares(self, present: int) -> Self:
        """The mechanism under the noise that is really there when `present` shares of this plan's size are summed.

        Every site adds its share, but only `noise_shares` of them are accounted. Where nobody drops out and nobody
        colludes, the noise multiplier is `noise_excess` times the accounted one, and ε is that of this other plan.

        Raises:
            ConfigError: When the noise is gaussian and `present` is not 1.
            ValueError: When `present` is below 1.
        """
        return replace(self, noise_multiplier=self.noise_multiplier * self.noise_excess(present), noise_shares=present)

    def noise_excess(self, present: int) -> float:
        """Noise of `present` shares over the noise that is accounted: √(present / (n - d - c)).

        Raises:
            ValueError: When `present` is below 1.
        """
        if present < 1:
            raise ValueError(f"at least one share of noise is present, not {present}")
        return math.sqrt(present / self.noise_shares)

    def event(self, steps: int | None = None) -> dp_accounting.DpEvent:
        """What `steps` steps (all of the plan's if None) release, in the words of the Gaussian accountants.

        Raises:
            ValueError: When the noise is not gaussian: no event of the library means Skellam noise.
        """
        if self.noise != "gaussian":
            raise ValueError(f"only gaussian noise has an event, not {self.noise}")
        count = self.steps if steps is None else steps
        one_step = dp_accounting.PoissonSampledDpEvent(
            self.sampling_rate, dp_accounting.GaussianDpEvent(self.noise_multiplier)
        )
        return dp_accounting.SelfComposedDpEvent(one_step, count)

    def decode(self, total: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        """Turn a noisy integer sum into the mean gradient.

        Guarantees:
            Reads nothing but public constants: the divisor is the plan's, however many units the step drew. Dividing
            by the drawn number would both release that number and break the sensitivity bound.

        Args:
            total: Sum of clipped units plus noise, in grid steps, `[d]`.

        Returns:
            Mean gradient, `[d]`.

        Raises:
            TypeError: When the total is not int64, which would mean that it never was on the grid.
        """
        if total.dtype != np.int64:
            raise TypeError(f"a noisy total is int64, not {total.dtype}")
        return total.astype(np.float64) * (self.grid_step / self.divisor)


def largest_noise_multiplier(grid_bits: int, noise: Noise, noise_shares: int) -> float:
    """The largest σ whose share of noise a site can draw on a grid of so many bits."""
    return math.ldexp(_LARGEST_SCALE[noise] * math.sqrt(noise_shares), -grid_bits)


def _is_noise(noise_multiplier: float) -> bool:
    return noise_multiplier == 0 or _LEAST_NOISE <= noise_multiplier < math.inf


def _problems(plan: PrivacyPlan) -> list[Problem]:
    low, high = _CLIP_NORM_RANGE
    rules = (
        ("unit", plan.unit in {"patient", "record"}, "must be patient or record"),
        ("sampling_rate", 0 < plan.sampling_rate <= 1, "must be above 0 and at most 1"),
        ("steps", plan.steps >= 0, "must not be negative"),
        ("clip_norm", low <= plan.clip_norm <= high, f"must lie between {low:g} and {high:g}"),
        ("noise_multiplier", _is_noise(plan.noise_multiplier), f"must be 0, or from {_LEAST_NOISE:g} on and finite"),
        ("divisor", 0 < plan.divisor < math.inf, "must be finite and positive"),
        ("delta", 0 < plan.delta < 1, "must lie between 0 and 1"),
        ("grid_bits", 8 <= plan.grid_bits <= 24, "must lie between 8 and 24"),
        ("noise", plan.noise in _LARGEST_SCALE, "must be gaussian or skellam"),
        (
            "noise_shares",
            plan.noise_shares >= 1,
            "(sites - tolerated_dropouts - tolerated_colluders) must be at least 1",
        ),
    )
    found = [
        Problem(f"privacy.{name}", rule, repr(getattr(plan, name)), f"change `privacy.{name}` in the plan")
        for name, holds, rule in rules
        if not holds
    ]
    return found or [*_share_problem(plan), *_scale_problem(plan)]


def _share_problem(plan: PrivacyPlan) -> list[Problem]:
    if plan.noise == "skellam" or plan.noise_shares == 1:
        return []
    rule = "must be 1 for gaussian noise: rounded Gaussian shares do not add up to rounded Gaussian noise"
    return [Problem("privacy.noise_shares", rule, repr(plan.noise_shares), "use skellam noise in mode distributed")]


def _scale_problem(plan: PrivacyPlan) -> list[Problem]:
    most = largest_noise_multiplier(plan.grid_bits, plan.noise, plan.noise_shares)
    if plan.noise_multiplier <= most * _ROUNDING:
        return []
    rule = f"must be smaller where a site's share of noise is that large: noise multipliers up to {most:.4g} fit"
    hint = f"lower `privacy.grid_bits`: each bit less fits twice the noise multiplier ({plan.noise_multiplier!r})"
    return [Problem("privacy.grid_bits", rule, repr(plan.grid_bits), hint)]
