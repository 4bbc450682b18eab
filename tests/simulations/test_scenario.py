from pathlib import Path

import pytest

import simulations.scenario
from common.errors import ConfigError, UsageError
from simulations.arms import as_distributed, as_per_site
from simulations.scenario import load_scenario, scenario_from_values
from tests.tiny_scenario import write_tiny_scenario


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write_tiny_scenario(tmp_path, Path("base"))


def problems_of(path: Path, *overrides: str) -> dict[str, tuple[str, str, str]]:
    with pytest.raises(ConfigError) as caught:
        load_scenario(path, overrides)
    assert caught.value.exit_code == 3
    assert str(path) in caught.value.message
    assert f"{len(caught.value.problems)} problem" in caught.value.message
    return {problem.where: (problem.rule, problem.value, problem.hint) for problem in caught.value.problems}


# --- every problem at once -----------------------------------------------------------------------------------------


def test_every_problem_is_told_at_once_with_key_rule_value_and_hint(path: Path) -> None:
    path.write_text(path.read_text().replace("learning_rate = 0.5\n", ""))
    problems = problems_of(
        path,
        "plan.adapter.rnak=4",
        "plan.rounds=two",
        "plan.privacy.epsilon=3",
        "data.files.validation_fraction=1.5",
        "plan.task.labels=['none', 'none']",
    )
    assert problems == {
        "plan.adapter.rnak": ("is not a known key", "", "did you mean `rank`?"),
        "plan.optimizer.learning_rate": (
            "is required",
            "",
            "add `learning_rate = …`; docs/configuration.md says what it means",
        ),
        "plan.rounds": (
            "must be a whole number, without quotes",
            "'two'",
            "change `plan.rounds`; docs/configuration.md lists what it may be",
        ),
        "plan.privacy.epsilon, plan.privacy.noise_multiplier": (
            "give exactly one of `epsilon` and `noise_multiplier`",
            "",
            "change `plan.privacy.epsilon` or `plan.privacy.noise_multiplier`; "
            "docs/configuration.md lists what each may be",
        ),
        "data.files.validation_fraction": (
            "must be below 1",
            "1.5",
            "change `data.files.validation_fraction`; docs/configuration.md lists what it may be",
        ),
        "plan.task.labels": (
            "`labels` must not repeat a label",
            "",
            "change `plan.task.labels`; docs/configuration.md lists what it may be",
        ),
    }


@pytest.mark.parametrize(
    ("overrides", "where", "rule"),
    [
        (
            ["plan.adapter.head_rounds=2"],
            "plan.adapter.head_rounds, plan.rounds",
            "`adapter.head_rounds` must be smaller than `rounds`",
        ),
        (
            ["plan.optimizer.warmup_steps=4"],
            "plan.optimizer.warmup_steps, plan.rounds, plan.local_steps",
            "`optimizer.warmup_steps` must be smaller than `rounds` x `local_steps`",
        ),
        (
            ["plan.adapter.method=bias", "plan.adapter.svd_refresh_rounds=1"],
            "plan.adapter.svd_refresh_rounds",
            "needs method lora or lora-b",
        ),
        (
            ["plan.adapter.svd_refresh_rounds=1", "plan.server.optimizer=fedadam"],
            "plan.adapter.svd_refresh_rounds",
            "server.optimizer fedavg without momentum",
        ),
        (["data.notes.hospitals=2"], "data", "give exactly one of the tables [data.files] and [data.notes]"),
        (["plan.minimum_sites=3"], "plan.minimum_sites", "`plan.minimum_sites` must be at most the 2 hospitals"),
        (["plan.mode=pooled"], "plan.mode", "must be 'distributed' or 'per-site'"),
    ],
)
def test_an_impossible_combination_is_named(path: Path, overrides: list[str], where: str, rule: str) -> None:
    problems = problems_of(path, *overrides)
    assert list(problems) == [where]
    assert rule in problems[where][0]


def test_notes_say_for_themselves_how_many_hospitals_write_them(path: Path) -> None:
    text = path.read_text()
    notes = text[: text.index("[data.files]")] + "[data.notes]\nhospitals = 3\n"
    path.write_text(notes)
    assert load_scenario(path, ["plan.minimum_sites=3"]).data.notes is not None
    assert "at most the 3 hospitals" in problems_of(path, "plan.minimum_sites=4")["plan.minimum_sites"][0]
    assert "[hospitals] is for [data.files]" in problems_of(path, "hospitals.count=2")["data.notes.hospitals"][0]


def test_no_source_of_data_is_a_problem(path: Path) -> None:
    text = path.read_text()
    path.write_text(text[: text.index("[data.files]")] + "[data]\n" + text[text.index("[hospitals]") :])
    assert problems_of(path)["data"][0] == "give exactly one of the tables [data.files] and [data.notes]"


@pytest.mark.parametrize(
    ("content", "sentence"),
    [(b"plan = [", "is not TOML"), (b"\xff\xfe", "cannot be read: UnicodeDecodeError"), (None, "does not exist")],
)
def test_a_file_that_cannot_be_read_is_one_sentence(tmp_path: Path, content: bytes | None, sentence: str) -> None:
    path = tmp_path / "other.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=sentence) as caught:
        load_scenario(path)
    assert caught.value.exit_code == 3
    assert caught.value.hint


# --- overrides -----------------------------------------------------------------------------------------------------


def test_overrides_keep_their_type_and_a_bare_word_is_a_string(path: Path) -> None:
    scenario = load_scenario(
        path,
        [
            "plan.rounds = 7",
            "plan.name=other",
            "network.drop=0.25",
            "measure.test_every_round=false",
            'plan.adapter.targets=["key"]',
            "plan.optimizer.schedule='cosine'",
            "base=/models/a=b",
        ],
    )
    assert (scenario.plan.rounds, scenario.plan.name, scenario.network.drop) == (7, "other", 0.25)
    assert scenario.measure.test_every_round is False
    assert scenario.plan.adapter.targets == ("key",)
    assert (scenario.plan.optimizer.schedule, scenario.base) == ("cosine", "/models/a=b")


def test_an_override_may_open_a_table_that_the_file_lacks(path: Path) -> None:
    assert load_scenario(path, ["plan.stopping.patience_rounds=2"]).plan.stopping.patience_rounds == 2


def test_an_override_that_leads_through_a_value_is_refused(path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--set plan\.rounds\.more: `rounds` is a value, not a table"):
        load_scenario(path, ["plan.rounds.more=1"])


@pytest.mark.parametrize("override", ["plan.rounds", "=3", " =3"])
def test_an_override_without_key_or_value_is_a_usage_error(path: Path, override: str) -> None:
    with pytest.raises(UsageError, match=r"must look like KEY\.PATH=VALUE") as caught:
        load_scenario(path, [override])
    assert caught.value.exit_code == 2


# --- folders -------------------------------------------------------------------------------------------------------


def folder_of(path: Path, *overrides: str) -> Path:
    files = load_scenario(path, overrides).data.files
    assert files is not None
    return Path(files.folder)


def test_a_relative_data_folder_starts_at_the_scenario_file(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir("/")
    assert folder_of(path) == tmp_path / "data"
    assert folder_of(path, "data.files.folder=../elsewhere") == tmp_path.parent / "elsewhere"
    assert folder_of(path, "data.files.folder=/absolute") == Path("/absolute")


def test_a_scenario_without_data_folder_takes_its_own(path: Path, tmp_path: Path) -> None:
    path.write_text(path.read_text().replace('folder = "data"\n', ""))
    assert folder_of(path) == tmp_path


def test_a_tilde_is_the_home_folder(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/someone")
    assert folder_of(path, "data.files.folder=~/rows") == Path("/home/someone/rows")


def test_a_data_folder_of_the_wrong_type_is_a_problem_and_no_crash(path: Path) -> None:
    assert problems_of(path, "data.files.folder=3") == {
        "data.files.folder": (
            "must be text in quotes",
            "3",
            "change `data.files.folder`; docs/configuration.md lists what it may be",
        )
    }


# --- what comes with the package, and what a run folder keeps --------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    sorted((Path(simulations.scenario.__file__).parent / "scenarios").glob("*.toml")),
    ids=lambda path: path.stem,
)
def test_every_packaged_scenario_parses(path: Path) -> None:
    assert load_scenario(path).plan.privacy.epsilon is not None


def test_a_scenario_survives_the_way_through_its_plain_values(path: Path) -> None:
    scenario = load_scenario(path, ["hospitals.skew=0.5"])
    assert scenario_from_values(scenario.model_dump(mode="json"), "run folder") == scenario


def test_an_override_without_a_value_takes_the_key_out(tmp_path: Path) -> None:
    folder = tmp_path / "s"
    folder.mkdir()
    path = folder / "s.toml"
    path.write_text(
        'base = "models/b"\n[plan]\nname = "s"\nrounds = 2\n'
        '[plan.task]\nlabels = ["no", "yes"]\npositive_label = "yes"\n'
        "[plan.privacy]\nepsilon = 8.0\nsampling_rate = 0.5\ndivisor = 4.0\n"
        '[plan.optimizer]\nlearning_rate = 1.0\n[data.files]\ntrain = ["a.csv"]\ntest = ["b.csv"]\n'
    )
    changed = load_scenario(
        path, ["plan.privacy.epsilon=", "plan.privacy.noise_multiplier=2.0", "plan.server.momentum="]
    )
    assert (changed.plan.privacy.epsilon, changed.plan.privacy.noise_multiplier) == (None, 2.0)
    assert changed.base == str(folder / "models" / "b")


def test_every_scenario_of_the_package_can_be_compared() -> None:
    """The last line of the demo says so: its steps must split into the rounds of the arm per-site."""
    for path in sorted((Path(simulations.scenario.__file__).parent / "scenarios").glob("*.toml")):
        scenario = load_scenario(path)
        as_per_site(scenario.plan, 4, scenario.compare.per_site_steps)
        as_distributed(scenario.plan, 4)
