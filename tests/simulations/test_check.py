"""Findings before training: each fault found, each with the mend, and no record in any of them."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from torch import nn

import simulations.check
from common.base_model import Base
from common.errors import ConfigError
from common.findings import Finding
from simulations.check import check_data, check_scenario, estimate_bytes, estimate_seconds, refuse_unfit
from simulations.scenario import Scenario
from simulations.world import build_world, load_splits, open_base
from tests.tiny_scenario import CANARY, tiny_scenario, write_rows


def found(scenario: Scenario) -> dict[str, Finding]:
    findings = check_scenario(scenario)
    for finding in findings:
        assert finding.level == "pass" or finding.mend, finding
    assert CANARY not in json.dumps([vars(finding) for finding in findings])
    return {finding.subject: finding for finding in findings}


def failed(findings: dict[str, Finding]) -> set[str]:
    return {subject for subject, finding in findings.items() if finding.level == "fail"}


# --- a scenario that fits ------------------------------------------------------------------------------------------


def test_a_scenario_that_fits_has_findings_of_every_kind_and_none_fails(tmp_path: Path, tiny_base: Path) -> None:
    findings = found(tiny_scenario(tmp_path, tiny_base))
    assert not failed(findings)
    assert {
        "hospital-1: labels",
        "hospital-2: draw",
        "patients",
        "texts",
        "layers",
        "batch norm",
        "per-sample gradients",
        "trained values",
        "frozen layers",
        "privacy",
        "time",
        "bytes",
        "memory",
    } <= findings.keys()
    assert findings["layers"].sentence.startswith("adapters sit in 1 of 3 layers")
    assert findings["trained values"].sentence.startswith("98 values")


def test_a_check_writes_nothing_and_trains_nothing(
    tmp_path: Path, tiny_base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from client.training.dp_step import DpStep

    scenario = tiny_scenario(tmp_path, tiny_base)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    monkeypatch.setattr(DpStep, "noisy_gradient", None)
    check_scenario(scenario)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


# --- the model -----------------------------------------------------------------------------------------------------


def test_an_unknown_target_fails_and_names_those_there_are(tmp_path: Path, tiny_base: Path) -> None:
    findings = found(tiny_scenario(tmp_path, tiny_base, 'plan.adapter.targets=["query", "keyy"]'))
    (subject,) = failed(findings)
    shown = f"{subject} {findings[subject].sentence} {findings[subject].mend}"
    assert "keyy" in shown
    assert "key" in shown.replace("keyy", "")


def test_too_many_top_layers_fail_by_number(tmp_path: Path, tiny_base: Path) -> None:
    findings = found(tiny_scenario(tmp_path, tiny_base, "plan.adapter.top_layers=4"))
    assert failed(findings) == {"layers"}
    assert "at most the base's 3 layers (found 4)" in findings["layers"].sentence
    assert findings["layers"].mend == "0 means all layers"


def test_too_many_pooled_layers_fail_by_number(tmp_path: Path, tiny_base: Path) -> None:
    findings = found(tiny_scenario(tmp_path, tiny_base, "plan.task.pool_layers=4"))
    assert failed(findings) == {"plan"}
    assert "at most the base's 3 layers (found 4)" in findings["plan"].sentence


def test_batch_norm_fails(tmp_path: Path, tiny_base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def with_batch_norm(scenario: Scenario) -> Base:
        base = open_base(scenario)
        base.encoder.add_module("norm_of_batches", nn.BatchNorm1d(4))
        return base

    monkeypatch.setattr(simulations.check, "open_base", with_batch_norm)
    findings = found(tiny_scenario(tmp_path, tiny_base))
    assert failed(findings) == {"batch norm"}
    assert "layer norm" in findings["batch norm"].mend


def test_adapters_in_every_layer_are_warned_of_as_slow(tmp_path: Path, tiny_base: Path) -> None:
    findings = found(tiny_scenario(tmp_path, tiny_base, "plan.adapter.top_layers=0"))
    assert findings["frozen layers"].level == "warn"
    assert not failed(findings)


# --- privacy -------------------------------------------------------------------------------------------------------


def test_no_noise_fails(tmp_path: Path, tiny_base: Path) -> None:
    findings = found(tiny_scenario(tmp_path, tiny_base, "plan.privacy.noise_multiplier=0.0"))
    assert failed(findings) == {"privacy"}
    assert "no privacy at all" in findings["privacy"].sentence


@pytest.mark.parametrize(("noise", "level"), [(0.5, "warn"), (2.0, "pass")])
def test_a_weak_promise_is_warned_of(tmp_path: Path, tiny_base: Path, noise: float, level: str) -> None:
    finding = found(tiny_scenario(tmp_path, tiny_base, f"plan.privacy.noise_multiplier={noise}"))["privacy"]
    assert finding.level == level
    assert f"σ = {noise:g}, q = 0.5, 4 steps" in finding.sentence
    assert (float(finding.sentence.split()[2]) > 10) == (level == "warn")


def test_an_epsilon_out_of_reach_fails_with_its_hint(tmp_path: Path, tiny_base: Path) -> None:
    values = tiny_scenario(tmp_path, tiny_base).model_dump(mode="json")
    values["plan"]["privacy"] |= {"noise_multiplier": None, "epsilon": 1e-9}
    assert failed(found(Scenario.model_validate(values))) == {"privacy.epsilon"}


# --- data ----------------------------------------------------------------------------------------------------------


def test_too_few_patients_for_the_sampling_rate_fail_at_each_hospital(tmp_path: Path, tiny_base: Path) -> None:
    findings = found(tiny_scenario(tmp_path, tiny_base, "plan.privacy.sampling_rate=0.05"))
    assert failed(findings) == {"hospital-1: draw", "hospital-2: draw"}
    assert "sampling_rate" in findings["hospital-1: draw"].mend


def test_a_patient_in_two_parts_fails(tmp_path: Path) -> None:
    scenario = tiny_scenario(tmp_path, Path("base"))
    write_rows(tmp_path / "data" / "test.csv", "p", patients=3)
    findings = check_data(load_splits(scenario), scenario)
    sentences = [finding.sentence for finding in findings if finding.level == "fail"]
    assert sentences
    assert all("and test: " in sentence for sentence in sentences)
    assert CANARY not in str(findings)


def test_unit_record_counts_records(tmp_path: Path) -> None:
    scenario = tiny_scenario(tmp_path, Path("base"), "plan.privacy.unit=record")
    draws = [f.sentence for f in check_data(load_splits(scenario), scenario) if f.subject.endswith("draw")]
    assert draws
    assert all("records on average" in sentence for sentence in draws)


def test_failed_findings_become_one_error_with_a_problem_each() -> None:
    fine = Finding("pass", "labels", "all occur")
    refuse_unfit((fine, replace(fine, level="warn")))
    bad = (Finding("fail", "draw", "too few", "bring more"), Finding("fail", "layers", "too many", "fewer"))
    with pytest.raises(ConfigError, match=r"2 check\(s\) failed") as caught:
        refuse_unfit((fine, *bad))
    assert [(p.where, p.rule, p.hint) for p in caught.value.problems] == [
        ("draw", "too few", "bring more"),
        ("layers", "too many", "fewer"),
    ]
    assert caught.value.exit_code == 3


# --- cost ----------------------------------------------------------------------------------------------------------


def test_bytes_are_two_messages_a_round_and_hospital(tmp_path: Path, tiny_base: Path) -> None:
    # 98 values of 4 bytes, there and back, 2 hospitals, 2000 rounds.
    findings = found(tiny_scenario(tmp_path, tiny_base, "plan.rounds=2000", "plan.privacy.noise_multiplier=50.0"))
    assert findings["bytes"].sentence == "392 bytes each way a round and hospital, 3.1 MB in all"


def test_more_rounds_take_longer_and_head_rounds_take_next_to_nothing(
    tmp_path: Path, tiny_base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(simulations.check, "_seconds_per_token", lambda model: (1e-3, 1e-2))
    few, many, head = (
        estimate_seconds(build_world(tiny_scenario(tmp_path, tiny_base, *overrides)))
        for overrides in (("plan.rounds=2",), ("plan.rounds=4",), ("plan.rounds=4", "plan.adapter.head_rounds=2"))
    )
    assert few < many
    assert head == pytest.approx(few)


def test_time_is_estimated_from_tokens_by_hand(
    tmp_path: Path, tiny_base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """56 rows of 8 words: 13.2 tokens each (1.4 a word, and 2); 34 private rows (17 of 20 patients), 22 public."""
    monkeypatch.setattr(simulations.check, "_seconds_per_token", lambda model: (0.1, 0.6))
    world = build_world(tiny_scenario(tmp_path, tiny_base))
    private, public = 34 * 13.2, 22 * 13.2
    expected = 0.1 * (private + public) + 4 * 0.5 * private * 0.6 + 2 * public * 0.6 / 3
    assert estimate_seconds(world) == pytest.approx(expected)


def test_memory_counts_the_base_once_and_the_kept_features(tmp_path: Path, tiny_base: Path) -> None:
    world = build_world(tiny_scenario(tmp_path, tiny_base))
    base = sum(4 * tensor.numel() for tensor in world.model.peft.parameters())
    kept = 16 * 4 * 56 * 13.2
    units = max(part.patient_count for part in world.splits.hospitals)
    gradients = 2 * 8 * 0.5 * units * 98
    assert estimate_bytes(world) == pytest.approx(base + kept + gradients)
