import json
import math
import re
from dataclasses import replace

import numpy as np
import pytest

import server.report
from common.plan import Plan
from server.report import Judged, RunReport, SitePrivacy, is_finished, model_card, results, write_report
from server.run import RunOutcome
from server.state import Evaluation, GlobalModel, RoundSummary
from tests.plans import make_plan

DATA = "The notes are synthetic."


def report_of(plan: Plan, rounds: int = 3, chosen: str = "best", chosen_round: int = 2) -> RunReport:
    history = tuple(
        RoundSummary(
            round_number=number,
            survivors=0 if number == 1 else 2,
            applied=number != 1,
            refusals={"malformed": 1},
            faults={},
            update_norm=0.5,
            group_norms={"head": 0.5},
            validation=None if number == 1 else Evaluation(0.5 / number, {"auc": 0.9, "test_auc": 0.7}),
            seconds=1.5,
            bytes_out=1000,
            bytes_in=500,
        )
        for number in range(1, rounds + 1)
    )
    model = GlobalModel(np.zeros(3), np.zeros(0, dtype=np.float32))
    curve = tuple(0.5 * number for number in range(1, plan.rounds + 1))
    return RunReport(
        plan=plan,
        outcome=RunOutcome(
            model, chosen, chosen_round, history[chosen_round - 1].validation, history, stopped_early=True
        ),
        privacy=(SitePrivacy("north", 6, 1.50001, curve), SitePrivacy("south", 4, 1.25, curve)),
        data=DATA,
        trained_values=12345,
        validation=Judged(Evaluation(0.25, {"auc": 0.9, "test_auc": 0.7}), {"none": 30, "event": 10}),
        test=Judged(Evaluation(0.75, {"auc": 0.8, "accuracy": math.nan}), {"none": 60, "event": 20}),
        seconds=12.3,
        versions={"torch": "2.13.0", "cloister": "0.1.0"},
    )


@pytest.fixture
def report() -> RunReport:
    return report_of(make_plan(rounds=9, stopping={"patience_rounds": 1}))


# --- results.json ----------------------------------------------------------------------------------------------------


def test_results_hold_what_a_script_needs(report):
    found = results(report)
    assert found["format_version"] == 1
    assert found["plan_digest"] == report.plan.digest
    assert found["result"] == {"chosen": "best", "round": 2, "stopped_early": True}
    assert found["test"] == {
        "loss": 0.75,
        "metrics": {"auc": 0.8, "accuracy": None},
        "rows": 80,
        "rows_by_label": {"none": 60, "event": 20},
    }
    assert found["validation"]["rows"] == 40
    assert found["privacy"]["holds"] is True
    assert found["privacy"]["neighbours"] == "add/remove"
    assert (found["privacy"]["unit"], found["privacy"]["delta"]) == ("patient", 1e-5)
    assert found["privacy"]["sites"][0] == {
        "site": "north", "steps": 6, "epsilon": 1.50001, "epsilon_by_round": [0.5, 1.0, 1.5]
    }  # fmt: skip
    assert found["totals"] == {
        "rounds": 3, "rounds_planned": 9, "rounds_applied": 2, "seconds": 12.3, "bytes_out": 3000, "bytes_in": 1500
    }  # fmt: skip
    assert [entry["round_number"] for entry in found["rounds"]] == [1, 2, 3]
    assert found["rounds"][0]["validation"] is None
    assert list(found["versions"]) == ["cloister", "torch"]


def test_without_noise_no_guarantee_is_claimed(report):
    bare = replace(report, privacy=(SitePrivacy("north", 6, math.inf, (math.inf,) * 3),))
    privacy = results(bare)["privacy"]
    assert privacy["holds"] is False
    assert privacy["sites"][0]["epsilon"] is None
    assert privacy["sites"][0]["epsilon_by_round"] == [None, None, None]


def test_a_set_that_was_not_there_is_null(report):
    found = results(replace(report, test=None, validation=None))
    assert found["test"] is found["validation"] is None


# --- the folder ------------------------------------------------------------------------------------------------------


def test_the_folder_holds_picture_card_and_results(tmp_path, report):
    write_report(report, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["learning-curve.png", "model-card.md", "results.json"]
    assert (tmp_path / "learning-curve.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "model-card.md").read_text(encoding="utf-8") == model_card(report)
    text = (tmp_path / "results.json").read_text(encoding="utf-8")
    assert json.loads(text) == results(report)
    assert text.endswith("}\n")
    write_report(report, tmp_path)
    assert (tmp_path / "results.json").read_text(encoding="utf-8") == text


@pytest.mark.parametrize("write", [1, 2, 3])
def test_a_report_that_was_cut_short_is_never_taken_for_a_finished_run(tmp_path, report, monkeypatch, write):
    write_report(report, tmp_path)  # of an earlier attempt
    assert is_finished(tmp_path)
    calls = []

    def write_or_die(path, content):
        calls.append(path.name)
        if len(calls) == write:
            raise KeyboardInterrupt
        path.write_bytes(content)

    monkeypatch.setattr(server.report, "write_durably", write_or_die)
    with pytest.raises(KeyboardInterrupt):
        write_report(report, tmp_path)
    assert calls == ["learning-curve.png", "model-card.md", "results.json"][:write]
    assert not is_finished(tmp_path)


# --- model-card.md ---------------------------------------------------------------------------------------------------


def rows(card: str, heading: str) -> list[list[str]]:
    """Cells of the first table below a heading, without its two head lines."""
    section = card.split(f"## {heading}\n", 1)[1]
    lines = re.search(r"(?:^\|.*\n)+", section, re.MULTILINE).group().splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def test_the_card_shows_results_with_counts_and_no_figure_of_another_set(report):
    assert rows(model_card(report), "Results") == [
        ["loss", "0.7500", "0.2500"],
        ["accuracy", "-", "-"],
        ["AUC", "0.8000", "0.9000"],
        ["rows", "80", "40"],
        ["rows labelled none", "60", "30"],
        ["rows labelled event", "20", "10"],
    ]


def test_the_card_shows_what_each_site_spent_never_rounded_down(report):
    assert rows(model_card(report), "Privacy") == [["north", "1.501", "1e-05", "6"], ["south", "1.250", "1e-05", "4"]]


def test_the_card_names_base_and_plan_by_digest(report):
    card = model_card(report)
    assert f"`{report.plan.digest}`" in card
    assert rows(card, "How to load it") == [["a", f"`{'0' * 64}`"]]
    assert DATA in card


@pytest.mark.parametrize(
    ("unit", "said", "unsaid"),
    [
        ("patient", "one patient's records at one site", "(k ε, k e^((k-1) ε) δ)"),
        ("record", "(k ε, k e^((k-1) ε) δ)", "one patient's records at one site"),
    ],
)
def test_the_card_says_whose_presence_is_hidden(unit, said, unsaid):
    card = model_card(report_of(make_plan(privacy={"unit": unit})))
    assert said in card
    assert unsaid not in card


def test_the_card_of_a_run_without_noise_promises_nothing(report):
    card = model_card(replace(report, privacy=(SitePrivacy("north", 6, math.inf, (math.inf,) * 3),)))
    assert "**None.** The plan's noise multiplier is 0" in card
    assert "differentially private for" not in card
    assert "clipped but not noised" in card


@pytest.mark.parametrize(
    ("patience", "chosen", "role"),
    [
        (1, "best", "The validation set decided when to stop and which model is the result."),
        (1, "averaged", "The validation set decided when to stop."),
        (0, "last", "The validation set was only watched."),
    ],
)
def test_the_card_says_what_the_validation_set_decided(patience, chosen, role):
    plan = make_plan(rounds=9, stopping={"patience_rounds": patience})
    assert role in model_card(report_of(plan, chosen=chosen))


def test_the_card_without_public_sets_says_so(report):
    card = model_card(replace(report, test=None, validation=None))
    assert "not judged on any public set" in card
    assert "set decided" not in card


def test_the_card_shows_few_rounds_of_a_long_run_with_first_last_and_chosen():
    shown = [int(row[0]) for row in rows(model_card(report_of(make_plan(rounds=99), 99, "best", 47)), "Training")]
    assert len(shown) <= 13
    assert {1, 47, 99} <= set(shown)
    assert shown == sorted(shown)


def test_names_from_a_plan_cannot_break_out_of_a_table():
    hostile = "a|b\n# owned <script> `x` *y* [z](q)"
    plan = make_plan(task={"labels": (hostile, "event"), "positive_label": "event"})
    card = model_card(report_of(plan))
    assert "a\\|b # owned \\<script\\> \\`x\\` \\*y\\* \\[z\\](q)" in card
    assert "\n# owned" not in card


def test_the_card_is_tidy(report):
    for card in (model_card(report), model_card(replace(report, test=None, validation=None))):
        prose = re.sub(r"```python\n.*?```", "code", card, flags=re.DOTALL)
        assert "\n\n\n" not in prose
        assert "None" not in prose.replace("**None.**", "")
        assert card.endswith("model.\n")
        front = card.split("---\n")[1]
        assert 'base_model: "tiny"' in front


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
@pytest.mark.parametrize("pool_layers", [1, 2])
def test_the_code_on_the_card_loads_the_exported_folder(tiny_base, tmp_path, monkeypatch, pool_layers):
    from common.base_model import load_base
    from common.compute import ComputeConfig
    from common.trainable import TrainableModel

    plan = make_plan(adapter={"feature_scale": 3.0}, task={"pool_layers": pool_layers})
    model = TrainableModel(load_base(tiny_base, "tiny", ComputeConfig()), plan, ComputeConfig())
    weights = model.start + np.random.default_rng(0).normal(0, 0.3, model.start.shape)
    texts = ["the patient had a rash", "no fever", "rash " * 40]
    model.export("tiny", weights, model.basis(), tmp_path / "adapter")
    logits = model.logits(model.prepare(texts).at("full"), "full").astype(np.float64)
    expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)

    code = re.search(r"```python\n(.*?)```", model_card(report_of(plan)), re.DOTALL).group(1)
    names = {}
    monkeypatch.chdir(tmp_path)
    exec(compile(code.replace("path/to/the/base", str(tiny_base)), "model-card.md", "exec"), names)  # noqa: S102
    np.testing.assert_allclose(names["probabilities"](texts).numpy(), expected, atol=1e-5)
    assert names["notes"]["labels"] == list(plan.task.labels)
