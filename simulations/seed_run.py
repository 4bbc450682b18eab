"""One seed of a comparison: its data, models and features, and every arm run on them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from rich.console import Console

from client.training.dp_step import TrainingSet
from common.errors import ConfigError
from common.features import Features
from common.plan import Plan, PlanDraft
from common.privacy.accountant import epsilon
from common.privacy.calibrate import noise_for
from common.privacy.mechanism import mechanism_of
from common.privacy.plan import PrivacyPlan
from common.randomness import SecretSource
from common.trainable import Prepared, TrainableModel
from server.evaluation import PublicEvaluator
from simulations.arms import (
    ALONE,
    ARMS,
    DISTRIBUTED,
    HEAD_DISTRIBUTED,
    HEAD_POOLED,
    NON_PRIVATE,
    PER_SITE,
    POOLED_NOISIER,
    as_distributed,
    as_per_site,
    at_epsilon,
    with_head_alone,
)
from simulations.baselines import train_with_privacy, train_without_privacy
from simulations.check import check_data, refuse_unfit
from simulations.federation import Setting, federate
from simulations.scenario import Scenario
from simulations.view import phases
from simulations.world import World, build_world, finish_plan, open_base, site_names


def metric_of(scenario: Scenario) -> str:
    """What arms are judged by: AUC where there is a positive label, else accuracy."""
    return "AUC" if scenario.plan.task.positive_label is not None else "accuracy"


class SeedRun:
    """One seed's data, models and features, shared by all arms; `folder` is set once it is known that they fit."""

    folder: Path

    def __init__(self, scenario: Scenario, console: Console, arms: tuple[str, ...] = tuple(ARMS)) -> None:
        self.scenario, self._console, self._arms = scenario, console, arms
        with phases(console) as say:
            say(f"seed {scenario.seed}: data, base model and frozen layers")
            self._world: World = build_world(scenario)
            refuse_unfit(check_data(self._world.splits, scenario))
            self._sites = site_names(len(self._world.splits.hospitals))
            self._drafts = {kind: self._draft(kind) for kind in dict.fromkeys(map(_kind, arms))}
            self._models = {
                kind: TrainableModel(open_base(scenario), draft, scenario.compute)
                for kind, draft in self._drafts.items()
            }
            self._hospitals = [self._prepare(part.texts) for part in self._world.splits.hospitals]
            self._validation = self._prepare(self._world.splits.validation.texts)
            self._test = self._prepare(self._world.splits.test.texts)

    def _draft(self, kind: str) -> PlanDraft:
        """A plan of one kind: the same values, but what a round trains differs."""
        draft, sites = self.scenario.plan, len(self._sites)
        if kind == PER_SITE:
            return as_per_site(draft, sites, self.scenario.compare.per_site_steps)
        distributed = as_distributed(draft, sites)
        return with_head_alone(distributed) if kind == HEAD_DISTRIBUTED else distributed

    def _prepare(self, texts: tuple[str, ...]) -> Prepared:
        model = self._world.model
        return model.prepare(texts, stages=("head", *(stage for stage in model.stages if stage != "head")))

    def all_arms(self, targets: tuple[float, ...]) -> Iterator[tuple[str, float | None, float]]:
        """Every arm's name, ε and test metric, as they finish."""
        for arm in self._arms:
            for target in (None,) if arm == NON_PRIVATE else targets:
                shown = "" if target is None else f", ε {target:g}"
                with phases(self._console) as say:
                    say(f"seed {self.scenario.seed}: training {arm}{shown}")
                    yield arm, target, self._arm(arm, target)

    def _arm(self, arm: str, target: float | None) -> float:
        """The test metric of one arm."""
        if target is None:
            return self._without_privacy()
        if arm in (DISTRIBUTED, PER_SITE, HEAD_DISTRIBUTED):
            return self._federated(arm, target)
        if arm == ALONE:
            return float(np.mean([self._in_one_place(arm, target, [number]) for number in self._numbers]))
        return self._in_one_place(arm, target, self._numbers)

    @property
    def _numbers(self) -> list[int]:
        return list(range(len(self._hospitals)))

    def _without_privacy(self) -> float:
        model = self._models[DISTRIBUTED]
        weights = train_without_privacy(model, self._joined(self._numbers), self.scenario.baseline, self.scenario.seed)
        return self._judge(model, weights, np.zeros(0, dtype=np.float32))

    def _in_one_place(self, arm: str, target: float, numbers: list[int]) -> float:
        """DP-SGD on the rows of some hospitals together; the divisor stands for as many hospitals."""
        model = self._models[_kind(arm)]
        mechanism = self._mechanism(arm, target)
        divisor = mechanism.divisor * len(numbers) / len(self._hospitals)
        data = self._joined(numbers)
        weights = train_with_privacy(model, data, replace(mechanism, divisor=divisor), SecretSource())
        return self._judge(model, weights, np.zeros(0, dtype=np.float32))

    def _mechanism(self, arm: str, target: float) -> PrivacyPlan:
        """Gaussian noise that keeps the target; or, for the noisier pooled arm, as much as `distributed` has in all."""
        privacy, steps = self._drafts[_kind(arm)].privacy, self._drafts[_kind(arm)].steps
        noise = noise_for(target, privacy, steps)
        if arm == POOLED_NOISIER:
            distributed = mechanism_of(self._plan(DISTRIBUTED, target))
            noise = distributed.noise_multiplier * distributed.noise_excess(len(self._hospitals))
        return PrivacyPlan.from_config(privacy, noise, steps)

    def _federated(self, arm: str, target: float) -> float:
        plan, model = self._plan(arm, target), self._models[arm]
        folder = self.folder / f"{arm.replace(', ', '-').replace(' ', '-')}-{target:g}"
        folder.mkdir(parents=True)
        setting = Setting(
            plan=plan,
            model=model,
            hospitals={name: self._joined([number]) for number, name in enumerate(self._sites)},
            evaluator=PublicEvaluator(model, self._validation, self._world.splits.validation.labels),
            folder=folder,
            faults=self.scenario.network,
            seed=self.scenario.seed,
            identities=self._world.identities,
        )
        outcome = federate(setting).outcome
        return self._judge(model, outcome.model.weights, outcome.model.basis)

    def _plan(self, arm: str, target: float) -> Plan:
        draft = at_epsilon(self._drafts[arm], target)
        plan = finish_plan(draft, len(self._sites), self._world.plan.base, self._world.identities)
        reached = epsilon(mechanism_of(plan))
        if not reached <= target:
            raise ConfigError(f"the noise found gives ε = {reached:.4f}, above the target {target:g}")
        return plan

    def _hospital(self, number: int) -> TrainingSet:
        records, unit = self._world.splits.hospitals[number], self.scenario.plan.privacy.unit
        return TrainingSet(self._hospitals[number], records.labels, records.units(unit), records.unit_count(unit))

    def _joined(self, numbers: list[int]) -> TrainingSet:
        """The rows of some hospitals as one training set; their patients stay apart."""
        sets = [self._hospital(number) for number in numbers]
        starts = np.cumsum([0, *(data.unit_count for data in sets)])
        return TrainingSet(
            Prepared(
                _features([data.prepared.hidden for data in sets]),
                _features([data.prepared.pooled for data in sets]),
                np.concatenate([data.prepared.lost for data in sets]),
            ),
            np.concatenate([data.labels for data in sets]),
            np.concatenate([data.units + start for data, start in zip(sets, starts, strict=False)]),
            int(starts[-1]),
        )

    def _judge(self, model: TrainableModel, weights: np.ndarray, basis: np.ndarray) -> float:
        evaluation = PublicEvaluator(model, self._test, self._world.splits.test.labels).evaluate(weights, basis)
        return evaluation.metrics[metric_of(self.scenario).lower()]


def _kind(arm: str) -> str:
    """The kind of plan whose steps an arm takes."""
    if arm in (HEAD_POOLED, HEAD_DISTRIBUTED):
        return HEAD_DISTRIBUTED
    return PER_SITE if arm == PER_SITE else DISTRIBUTED


def _features(parts: list[Features | None]) -> Features | None:
    kept = [part for part in parts if part is not None]
    return Features.join(kept) if kept else None
