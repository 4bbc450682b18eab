"""The plan: everything the parties agree on before a run, and nothing that depends on a patient.

A scenario or a coordinator writes a *draft*, in which the noise may still be a target ε and the base model has no
digest. `Plan` is the finished thing: its canonical bytes have one digest, and that digest names the run.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self, TypeVar

from pydantic import Field, model_validator

from common.canonical import digest
from common.config import Names, StrictConfig
from common.plan_rules import impossible_sections, impossible_sites
from common.secagg.parameters import Parameters

PositiveInt = Annotated[int, Field(ge=1)]
Count = Annotated[int, Field(ge=0)]
PositiveFloat = Annotated[float, Field(gt=0)]
Fraction = Annotated[float, Field(gt=0, le=1)]
Decay = Annotated[float, Field(ge=0, lt=1)]

Unit = Literal["patient", "record"]
Hexadecimal = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
SiteName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
Roster = dict[SiteName, Hexadecimal]
Mode = Literal["distributed", "per-site"]
AdapterMethod = Literal["lora-b", "lora", "head", "bias"]


class TaskConfig(StrictConfig):
    """What the model learns: one label for a text."""

    kind: Literal["text-classification"] = Field("text-classification", description="what is learned")
    labels: Names = Field(min_length=2, description="label names, in the order of the model's outputs")
    positive_label: str | None = Field(None, description="the label that AUC and F1 are about; needed for two labels")
    max_tokens: Annotated[int, Field(ge=4, le=8192)] = Field(64, description="longer texts are cut")

    pool_layers: PositiveInt = Field(1, description="the head reads the mean-pooled outputs of so many top layers")

    @model_validator(mode="after")
    def _labels_fit(self) -> Self:
        if len(set(self.labels)) != len(self.labels):
            raise ValueError("`labels` must not repeat a label")
        if self.positive_label is not None and self.positive_label not in self.labels:
            raise ValueError("`positive_label` must be one of `labels`")
        return self


class AdapterConfig(StrictConfig):
    """Which values are trained on top of the frozen base."""

    method: AdapterMethod = Field(
        "lora-b", description="lora-b trains B and the head; lora also A; head and bias only that"
    )
    rank: PositiveInt = Field(4, description="rank of the low-rank update")
    alpha: PositiveFloat = Field(8.0, description="the update is scaled by alpha / rank")
    targets: Names = Field(("query", "value"), description="names of the linear modules that carry LoRA")
    top_layers: Count = Field(2, description="only the top layers carry adapters; 0 means all layers")
    feature_scale: PositiveFloat = Field(1.0, description="pooled features are multiplied by this before the head")
    head_rounds: Count = Field(0, description="in this many first rounds only the head is trained")
    svd_refresh_rounds: Count = Field(0, description="the server refactors B·A every so many rounds; 0 means never")


class PrivacyConfig(StrictConfig):
    """Constants of the mechanism. None of them may be derived from a private count."""

    unit: Unit = Field("patient", description="whose presence is hidden: one patient at one site, or one record")
    delta: Annotated[float, Field(gt=0, lt=1)] = Field(1e-5, description="δ of (ε, δ)")
    clip_norm: PositiveFloat = Field(1.0, description="L2 bound on one unit's summed gradient")
    sampling_rate: Fraction = Field(description="q: probability that a unit takes part in a step")
    divisor: PositiveFloat = Field(
        description="D: the noisy sum (over all sites in mode distributed) is divided by this public constant"
    )
    grid_bits: Annotated[int, Field(ge=8, le=24)] = Field(
        16, description="clip_norm is 2^grid_bits steps of the integer grid"
    )


class PrivacyDraft(PrivacyConfig):
    """Privacy constants as a person writes them: a target ε or a noise multiplier, not both."""

    epsilon: PositiveFloat | None = Field(None, description="target ε of the whole run; the noise is calibrated to it")
    noise_multiplier: Annotated[float, Field(ge=0)] | None = Field(None, description="σ: noise over clip_norm")

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if (self.epsilon is None) == (self.noise_multiplier is None):
            raise ValueError("give exactly one of `epsilon` and `noise_multiplier`")
        return self


class PrivacyTerms(PrivacyConfig):
    """Privacy constants of a finished plan: the noise multiplier is fixed."""

    noise_multiplier: Annotated[float, Field(ge=0)] = Field(description="σ: noise over clip_norm")


class OptimizerConfig(StrictConfig):
    """Turns noisy gradients into steps: at the coordinator in mode distributed, at each site in mode per-site."""

    rule: Literal["sgd", "adam"] = Field("sgd", description="rule that turns noisy gradients into steps")
    learning_rate: PositiveFloat = Field(description="of the adapter")
    head_learning_rate: PositiveFloat | None = Field(None, description="of the head; the adapter's if left out")
    momentum: Decay = Field(0.9, description="of SGD; β₁ of Adam")
    second_moment: Decay = Field(0.99, description="β₂ of Adam")
    schedule: Literal["constant", "linear", "cosine"] = Field("linear", description="how the rates fall to the end")
    warmup_steps: Count = Field(0, description="the rates rise from 0 over so many steps of the whole run")


class SecureAggregationConfig(StrictConfig):
    """What the coordinator may see of a round: the sum alone, and with how many sites missing or disloyal."""

    masked: bool = Field(True, description="sites send masked numbers, of which only the sum can be read")
    tolerated_dropouts: Count = Field(1, description="d: so many sites may be missing from a round")
    tolerated_colluders: Count = Field(1, description="c: so many sites may tell the coordinator all they know")
    threshold: PositiveInt | None = Field(
        None, description="t: sites that must agree before anything is unmasked; sites - tolerated_dropouts if left out"
    )
    session_rounds: Annotated[int, Field(ge=1, le=256)] = Field(
        32, description="sites make new keys, and deal new shares, every so many rounds"
    )
    update_limit: PositiveFloat = Field(
        16.0, description="mode per-site: a value of a masked update beyond this is cut, so that sums cannot wrap"
    )

    def parameters(self, sites: int) -> Parameters:
        """n, d, c and t for so many sites."""
        threshold = sites - self.tolerated_dropouts if self.threshold is None else self.threshold
        return Parameters(sites, self.tolerated_dropouts, self.tolerated_colluders, threshold)


class ServerConfig(StrictConfig):
    """How the coordinator turns the mean change into the next global model; in mode per-site."""

    optimizer: Literal["fedavg", "fedadam", "fedyogi"] = Field("fedavg", description="server rule")
    learning_rate: PositiveFloat = Field(1.0, description="server step size")
    momentum: Decay = Field(0.0, description="of fedavg; β₁ of fedadam and fedyogi")
    second_moment: Decay = Field(0.99, description="β₂ of fedadam and fedyogi")
    adaptivity: PositiveFloat = Field(1e-3, description="τ of fedadam and fedyogi")
    average_rounds: Count = Field(
        0, description="the result is the mean of the last so many global models; 0 means the last"
    )


class StoppingConfig(StrictConfig):
    """When the global model is judged, on the public validation set only, and when that ends the run."""

    judge_rounds: PositiveInt = Field(1, description="the model is judged every so many rounds, and after the last")

    patience_rounds: Count = Field(
        0, description="stop after so many judged rounds without a better validation loss; 0 means never"
    )
    minimum_gain: Annotated[float, Field(ge=0)] = Field(
        0.0, description="a smaller fall of the validation loss is none"
    )


class BaseIdentity(StrictConfig):
    """The pretrained base, by name and by the SHA-256 of each of its files."""

    name: str = Field(description="what card and adapter call the base")
    files: dict[str, Hexadecimal] = Field(min_length=1, description="SHA-256 of each of its files")

    @property
    def digest(self) -> str:
        """SHA-256 over the names and digests of its files; what the base is called does not enter."""
        return digest(self.files)


Checked = TypeVar("Checked", bound="PlanSections")


def _checked(plan: Checked, faults: list[str]) -> Checked:
    if faults:
        raise ValueError("; ".join(faults))
    return plan


class PlanSections(StrictConfig):
    """What a draft and a finished plan have in common."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")] = Field(description="short name of the study")
    mode: Mode = Field(
        "distributed",
        description="distributed: the sum over all hospitals is private; per-site: each hospital's own update is",
    )
    rounds: PositiveInt = Field(description="R: rounds of the run")
    local_steps: PositiveInt = Field(
        1, description="K: DP-SGD steps that a site takes between two messages; 1 in mode distributed"
    )
    minimum_sites: PositiveInt = Field(1, description="a round with fewer answers changes nothing")
    seed: Count = Field(1, description="public seed of the frozen A and of the head's start")
    task: TaskConfig
    adapter: AdapterConfig = AdapterConfig()
    optimizer: OptimizerConfig
    secure_aggregation: SecureAggregationConfig = SecureAggregationConfig()
    server: ServerConfig = ServerConfig()
    stopping: StoppingConfig = StoppingConfig()

    @property
    def steps(self) -> int:
        """T: DP-SGD steps of the whole run at one site."""
        return self.rounds * self.local_steps

    @property
    def masked(self) -> bool:
        """Whether what sites send can be read in the sum only."""
        return self.secure_aggregation.masked

    @model_validator(mode="after")
    def _sections_fit(self) -> Self:
        return _checked(self, impossible_sections(self))


class PlanDraft(PlanSections):
    """A plan as a person writes it."""

    privacy: PrivacyDraft


class Plan(PlanSections):
    """A finished plan. Frozen; identified by its digest."""

    format_version: Literal[1] = Field(1, description="changes when old plans can no longer be read")
    sites: PositiveInt = Field(description="n: hospitals that take part")
    roster: Roster = Field({}, description="Ed25519 public key of each hospital, by name; needed where it is masked")
    base: BaseIdentity
    privacy: PrivacyTerms

    @model_validator(mode="after")
    def _sites_fit(self) -> Self:
        return _checked(self, impossible_sites(self))

    @property
    def digest(self) -> str:
        """SHA-256 of the canonical form: equal plans have equal digests at every party."""
        return digest(self.model_dump(mode="json"))

    @property
    def parameters(self) -> Parameters:
        """n, d, c and t of secure aggregation."""
        return self.secure_aggregation.parameters(self.sites)

    @property
    def noise_shares(self) -> int:
        """Honest shares that make up the accounted noise: n - d - c in mode distributed; else a site's own noise, 1."""
        return 1 if self.mode == "per-site" else self.parameters.noise_shares
