"""The limits that a hospital sets to every plan; `client.policy` compares a plan with them."""

from __future__ import annotations

from datetime import date
from typing import Annotated, Literal

from pydantic import Field, Strict

from common.audit_fields import ReleaseClass
from common.config import Names, StrictConfig
from common.plan import AdapterMethod, Fraction, Hexadecimal, Mode, PositiveFloat, PositiveInt, Unit

Evaluation = Literal["public-set"]
"""public-set: the coordinator judges the model on public records. No plan can ask for more in this version."""

Units = Annotated[tuple[Unit, ...], Strict(strict=False), Field(min_length=1)]
Modes = Annotated[tuple[Mode, ...], Strict(strict=False), Field(min_length=1)]
Methods = Annotated[tuple[AdapterMethod, ...], Strict(strict=False), Field(min_length=1)]
Evaluations = Annotated[tuple[Evaluation, ...], Strict(strict=False), Field(min_length=1)]
Releases = Annotated[tuple[ReleaseClass, ...], Strict(strict=False), Field(min_length=1)]
Keys = Annotated[tuple[Hexadecimal, ...], Strict(strict=False)]


class NoiseFloor(StrictConfig):
    """The least noise, as a multiple of the clip norm, for each unit."""

    patient: PositiveFloat = Field(0.5, description="least σ of a plan whose unit is the patient")
    record: PositiveFloat = Field(1.0, description="least σ of a plan whose unit is the record")


class SitePolicy(StrictConfig):
    """What a plan may ask of this hospital. Nothing that a coordinator sends can widen it."""

    approval_needed: bool = Field(True, description="a person here has to approve each plan by its digest")
    expires: date | None = Field(None, description="the policy's last day (UTC); then every plan is refused")
    longest_validity_days: PositiveInt = Field(365, description="a plan may be valid for so many more days at most")
    coordinators: Keys | None = Field(
        None, description="public keys of those who may sign plans; left out: the one whose invitation was accepted"
    )
    units: Units = Field(("patient",), description="units of privacy that a plan may protect")
    noise_floor: NoiseFloor = NoiseFloor()
    most_epsilon: PositiveFloat = Field(8.0, description="most ε that one run may cost, at the plan's δ")
    most_delta: Fraction = Field(1e-5, description="most δ of one run")
    most_sampling_rate: Fraction = Field(0.5, description="a unit may take part in a step with this probability")
    most_rounds: PositiveInt = Field(2000, description="most rounds of one run")
    most_local_steps: PositiveInt = Field(50, description="most DP-SGD steps here between two messages")
    modes: Modes = Field(("distributed", "per-site"), description="modes that this site takes part in")
    masked_only: bool = Field(True, description="what is sent can be read in the sum over the sites only")
    least_sites: PositiveInt = Field(3, description="fewest hospitals in the plan")
    least_cohort: PositiveInt = Field(
        3, description="fewest hospitals whose answers a round may be made of: minimum_sites, or t if that is more"
    )
    least_threshold: PositiveInt = Field(3, description="least t: sites that agree before a sum is unmasked")
    least_colluders: PositiveInt = Field(1, description="least c: colluding sites that the plan must withstand")
    most_honest_share: Fraction = Field(
        0.8, description="mode distributed: (n - d - c) / n, the share of sites whose noise the accounting relies on"
    )
    bases: dict[str, Hexadecimal] | None = Field(
        None, description="base models allowed: name = digest, as `review` shows it; left out: any that is approved"
    )
    base_must_be_local: bool = Field(False, description="never take a base model from the coordinator")
    tasks: Names = Field(("text-classification",), min_length=1, description="kinds of task that are allowed")
    methods: Methods = Field(("lora-b", "lora", "head"), description="adapter methods that are allowed")
    targets: Names = Field(("*",), description="patterns of the modules that may carry LoRA; * fits any text")
    most_trained_values: PositiveInt | None = Field(
        None, description="most values that a plan may train; counted once the base is here; left out: no limit"
    )
    evaluations: Evaluations = Field(("public-set",), description="how the model may be judged")
    releases: Releases = Field(
        ("masked", "noised and charged", "key material", "public"), description="classes of what may leave this site"
    )
