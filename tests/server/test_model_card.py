import math
import re
from dataclasses import replace

import numpy as np
import pytest

from server.model_card import model_card
from server.results import RunReport, SitePrivacy
from tests.plans import make_plan
from tests.server.small_report import DATA, distributed_plan, masked_plan, report_of


@pytest.fixture
def report() -> RunReport:
    return report_of(make_plan(rounds=9, stopping={"patience_rounds": 1}))


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


def test_the_card_shows_judged_rounds_of_a_run_that_is_judged_now_and_then():
    report = report_of(make_plan(rounds=99, stopping={"judge_rounds": 7}), 99, "best", 49)
    rounds = tuple(
        summary if summary.round_number % 7 == 0 or summary.round_number == 99 else replace(summary, validation=None)
        for summary in report.outcome.rounds
    )
    card = model_card(replace(report, outcome=replace(report.outcome, rounds=rounds)))
    shown = {int(row[0]): row[3] for row in rows(card, "Training")}
    assert list(shown) == [1, 14, 28, 42, 49, 56, 70, 84, 98, 99]
    assert [number for number, loss in shown.items() if loss == "-"] == [1]
    assert "judged every 7 rounds and after the last." in card
    assert "was judged every" not in model_card(report_of(make_plan()))


# --- who is private against whom -------------------------------------------------------------------------------------


def prose(card: str) -> str:
    return " ".join(card.split())


def test_the_card_of_mode_distributed_says_what_is_private_against_whom():
    card = prose(model_card(report_of(distributed_plan())))
    for said in (
        "clipped and noised gradients of 12,345 trained values, masked so that only their sum can be read",
        "learns all that up to 1 of the 5 sites know. It does not hold if more sites collude",
        "only where at least 4 sites agree on who is in it; up to 1 may be missing",
        "The 3 honest shares that are certain to be there have a standard deviation of 1 times that norm together",
        "with no site missing, the noise is 1.29 times as large",
        "it comes from Rényi divergences of Poisson-sampled Skellam noise",
        "records at k sites: for them it weakens to (k ε, k e^((k-1) ε) δ)",
        "each of them one DP-SGD step on the sum over all sites; 1 changed nothing for lack of sites (at least 4 had",
        "and masks hide which one did",
    ):
        assert said in card
    for unsaid in ("Gaussian", "local step", "privacy loss", "All model changes that left a site", "(not for privacy)"):
        assert unsaid not in card


def test_the_card_of_masked_updates_says_that_they_are_private_without_the_masks():
    card = prose(model_card(report_of(masked_plan())))
    assert "private by themselves, whoever colludes. They are masked as well" in card
    assert "the sum over at least 4 sites, as long as no more than 1 of the 5 sites" in card
    assert "adds Gaussian noise" in card
    assert "Skellam" not in card


def test_the_card_of_readable_updates_does_not_speak_of_masks(report):
    card = prose(model_card(report))
    assert "mask" not in card.replace("attention_mask", "").replace("mask =", "").replace("mask.", "").split("```")[0]
    assert "collude" not in card


def test_one_honest_share_is_written_as_one():
    terms = {"masked": True, "tolerated_dropouts": 0, "tolerated_colluders": 2}
    roster = {name: digit * 64 for name, digit in zip("abc", "123", strict=True)}
    card = prose(model_card(report_of(distributed_plan(sites=3, roster=roster, secure_aggregation=terms))))
    assert "The 1 honest share that is certain to be there has a standard deviation of 1 times that norm; with" in card


def test_aborts_are_told_with_their_reasons():
    report = report_of(distributed_plan())
    first, *others = report.outcome.rounds
    rounds = (replace(first, abort="too few shares"), *others)
    card = prose(model_card(replace(report, outcome=replace(report.outcome, rounds=rounds))))
    assert "or because secure aggregation gave up (too few shares: 1)." in card


def test_names_from_a_plan_cannot_break_out_of_a_table():
    hostile = "a|b\n# owned <script> `x` *y* [z](q)"
    plan = make_plan(task={"labels": (hostile, "event"), "positive_label": "event"})
    card = model_card(report_of(plan))
    assert "a\\|b # owned \\<script\\> \\`x\\` \\*y\\* \\[z\\](q)" in card
    assert "\n# owned" not in card


def test_the_card_is_tidy(report):
    others = [report_of(plan) for plan in (distributed_plan(), masked_plan())]
    for card in map(model_card, (report, replace(report, test=None, validation=None), *others)):
        text = re.sub(r"```python\n.*?```", "code", card, flags=re.DOTALL)
        assert "\n\n\n" not in text
        assert "None" not in text.replace("**None.**", "")
        assert card.endswith(("model.\n", "did.\n"))
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


def test_without_tolerated_colluders_the_card_says_against_whom_nothing_holds() -> None:
    terms = {"masked": True, "tolerated_dropouts": 1, "tolerated_colluders": 0}
    said = "nor against another hospital, which can take its own noise off the sum"
    assert said in prose(model_card(report_of(distributed_plan(secure_aggregation=terms))))
    assert said not in prose(model_card(report_of(distributed_plan())))
