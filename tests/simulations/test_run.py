"""From a scenario to a finished run folder, and what becomes of one that was stopped."""

import fcntl
import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import PeftModel
from rich.console import Console
from safetensors.torch import load_file
from transformers import AutoModel

import simulations.run
from common.errors import CloisterError, ConfigError, IntegrityError, TryAgainError, UsageError
from server.report import is_finished
from simulations.measure import WatchedEvaluator
from simulations.run import Finished, new_folder, resume_run, start_run
from simulations.run_folder import read_scenario
from tests.tiny_base import make_tiny_base
from tests.tiny_scenario import CANARY, tiny_scenario

LAYOUT = (
    ".lock adapter/adapter_config.json adapter/adapter_model.safetensors adapter/cloister.json "
    "adapter/head.safetensors checkpoint.safetensors learning-curve.png model-card.md plan.json results.json "
    "scenario.json sites/.begun sites/hospital-1/charges.answer sites/hospital-1/charges.book "
    "sites/hospital-1/identity.key sites/hospital-2/charges.answer sites/hospital-2/charges.book "
    "sites/hospital-2/identity.key"
).split()


class StoppedError(BaseException):
    """Stands for SIGKILL."""


def silent() -> Console:
    return Console(file=io.StringIO(), width=100)


def start(folder: Path, base: Path, *overrides: str) -> Finished:
    return start_run(tiny_scenario(folder, base, *overrides), silent())


def only_run(folder: Path) -> Path:
    (found,) = (folder / "runs").iterdir()
    return found


def stopped(folder: Path, base: Path, monkeypatch: pytest.MonkeyPatch, name: str, *overrides: str) -> Path:
    """The folder of a run that was killed when it came to a function of `simulations.run`."""

    def kill(*_: object, **__: object) -> None:
        raise StoppedError

    with monkeypatch.context() as patch:
        patch.setattr(simulations.run, name, kill)
        with pytest.raises(StoppedError):
            start(folder, base, *overrides)
    return only_run(folder)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, tiny_base: Path) -> Finished:
    """One finished run, to look at."""
    return start(tmp_path_factory.mktemp("finished"), tiny_base, "measure.training_rows=4")


def results_of(folder: Path) -> dict:
    return json.loads((folder / "results.json").read_bytes())


# --- a finished run ------------------------------------------------------------------------------------------------


def test_a_finished_folder_holds_exactly_what_is_promised(finished: Finished) -> None:
    found = sorted(
        path.relative_to(finished.folder).as_posix() for path in finished.folder.rglob("*") if path.is_file()
    )
    assert found == LAYOUT
    assert is_finished(finished.folder)
    assert (finished.folder / "learning-curve.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


def test_results_hold_cost_and_figures(finished: Finished) -> None:
    results = results_of(finished.folder)
    plan = json.loads((finished.folder / "plan.json").read_bytes())
    assert results["plan_digest"] == plan["digest"]
    assert [(site["site"], site["steps"]) for site in results["privacy"]["sites"]] == [
        ("hospital-1", 4),
        ("hospital-2", 4),
    ]
    assert {summary["survivors"] for summary in results["rounds"]} == {2}
    assert results["test"]["rows_by_label"] == {"none": 10, "event": 6}
    assert results["validation"]["rows"] == 6
    watched = results["rounds"][-1]["validation"]["metrics"]
    assert {"auc", "test_loss", "test_auc", "train_loss"} <= watched.keys()


def test_the_last_lines_say_what_was_reached_what_it_cost_and_what_to_do_next(finished: Finished) -> None:
    reached, took, cost, folder, *following = finished.summary.splitlines()
    metrics = results_of(finished.folder)["test"]["metrics"]
    assert reached.startswith(f"reached: accuracy {metrics['accuracy']:.3f}, AUC ")
    assert took.startswith("took:    2 rounds in ")
    spent, shown = max(site["epsilon"] for site in results_of(finished.folder)["privacy"]["sites"]), cost.split()[3]
    assert spent <= float(shown) < spent + 0.01
    assert "for each patient of each hospital" in cost
    assert folder == f"folder:  {finished.folder}"
    assert "model-card.md" in following[0]
    assert "cloister-simulate compare" in following[1]


def test_nothing_in_the_folder_quotes_a_record(finished: Finished) -> None:
    for path in finished.folder.rglob("*"):
        assert path.is_dir() or CANARY.encode() not in path.read_bytes(), path.name
    assert CANARY not in finished.summary


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # PEFT, not ours
def test_the_adapter_is_loaded_by_plain_peft(finished: Finished, tiny_base: Path) -> None:
    encoder = AutoModel.from_pretrained(tiny_base, add_pooling_layer=False)
    ids = torch.tensor([[2, 7, 8, 9, 3]])
    with torch.no_grad():
        plain = encoder(input_ids=ids).last_hidden_state
        adapted = PeftModel.from_pretrained(encoder, finished.folder / "adapter")(input_ids=ids).last_hidden_state
    assert (adapted - plain).abs().max() > 1e-4
    assert json.loads((finished.folder / "adapter" / "adapter_config.json").read_bytes())[
        "base_model_name_or_path"
    ] == ("tiny")


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
def test_the_exported_model_scores_as_the_results_say(finished: Finished, tiny_base: Path) -> None:
    """Adapter and head, put together again with plain PEFT and torch, give the accuracy in results.json."""
    from transformers import AutoTokenizer

    from simulations.world import load_splits

    scenario = read_scenario(finished.folder)
    test = load_splits(scenario).test
    head = load_file(finished.folder / "adapter" / "head.safetensors")
    encoder = AutoModel.from_pretrained(tiny_base, add_pooling_layer=False)
    model = PeftModel.from_pretrained(encoder, finished.folder / "adapter").eval()
    tokenizer = AutoTokenizer.from_pretrained(tiny_base)
    right = 0
    for text, label in zip(test.texts, test.labels, strict=True):
        tokens = tokenizer(text, truncation=True, max_length=16, return_tensors="pt")
        with torch.no_grad():
            hidden = model(input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"]).last_hidden_state
        right += int((head["weight"] @ hidden[0].mean(0) + head["bias"]).argmax()) == label
    assert right / len(test) == pytest.approx(results_of(finished.folder)["test"]["metrics"]["accuracy"])


def test_a_bad_network_shows_in_the_results_and_costs_no_book_more_than_the_plan(
    tmp_path: Path, tiny_base: Path
) -> None:
    run = start(tmp_path, tiny_base, "network.drop=0.3", "network.repeat=0.5", "plan.rounds=4")
    results = results_of(run.folder)
    assert min(summary["survivors"] for summary in results["rounds"]) < 2
    assert max(site["steps"] for site in results["privacy"]["sites"]) <= 8


def test_without_noise_the_cost_is_called_infinite(tmp_path: Path, tiny_base: Path) -> None:
    run = start(tmp_path, tiny_base, "plan.privacy.noise_multiplier=0.0")
    assert "ε = infinite" in run.summary
    assert results_of(run.folder)["privacy"]["holds"] is False


def test_stopping_early_still_costs_the_plan(tmp_path: Path, tiny_base: Path) -> None:
    """When to stop was decided after seeing models, so ε of the report is not that of the shorter run."""
    overrides = ("plan.rounds=8", "plan.stopping.patience_rounds=1", "plan.stopping.minimum_gain=100.0")
    results = results_of(start(tmp_path, tiny_base, *overrides).folder)
    assert results["result"]["stopped_early"] is True
    assert len(results["rounds"]) < 8
    whole = results_of(start(tmp_path / "whole", tiny_base, "plan.rounds=8").folder)
    assert [site["epsilon"] for site in results["privacy"]["sites"]] == [
        site["epsilon"] for site in whole["privacy"]["sites"]
    ]


# --- stopped runs --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["_prepare", "federate", "_finish", "write_report"])
def test_a_run_stopped_anywhere_is_not_finished_and_resumes(
    tmp_path: Path, tiny_base: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    folder = stopped(tmp_path, tiny_base, monkeypatch, name)
    assert not is_finished(folder)
    assert resume_run(folder, silent()).folder == folder
    assert is_finished(folder)
    assert [site["steps"] for site in results_of(folder)["privacy"]["sites"]] == [4, 4]


def test_a_run_stopped_before_its_plan_was_written_resumes(
    tmp_path: Path, tiny_base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = stopped(tmp_path, tiny_base, monkeypatch, "_write_plan")
    assert sorted(path.name for path in folder.iterdir()) == ["scenario.json", "sites"]
    resume_run(folder, silent())
    assert is_finished(folder)


def test_a_run_stopped_while_its_adapter_was_written_leaves_no_half_adapter(
    tmp_path: Path, tiny_base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from common.adapters import files

    def kill(*_: object) -> None:
        raise StoppedError

    with monkeypatch.context() as patch:
        patch.setattr(files, "save_file", kill)
        with pytest.raises(StoppedError):
            start(tmp_path, tiny_base)
    folder = only_run(tmp_path)
    assert not (folder / "adapter").exists()
    resume_run(folder, silent())
    found = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    assert found == LAYOUT


def test_a_finished_run_is_left_as_it_is(finished: Finished) -> None:
    before = {path: path.read_bytes() for path in finished.folder.rglob("*") if path.is_file()}
    again = resume_run(finished.folder, silent())
    assert again.summary == f"{finished.folder} is finished already; nothing to do"
    assert {path: path.read_bytes() for path in finished.folder.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("exists", [True, False])
def test_a_folder_that_holds_no_run_is_refused(tmp_path: Path, exists: bool) -> None:
    folder = tmp_path / "other"
    if exists:
        folder.mkdir()
    with pytest.raises(UsageError, match="is not a run folder") as caught:
        resume_run(folder, silent())
    assert caught.value.hint


def test_a_base_that_changed_since_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = make_tiny_base(tmp_path / "base")
    folder = stopped(tmp_path, base, monkeypatch, "federate")
    config = json.loads((base / "config.json").read_bytes())
    (base / "config.json").write_text(json.dumps({**config, "layer_norm_eps": 1e-11}))
    with pytest.raises(IntegrityError, match="is not the one that its scenario gives now") as caught:
        resume_run(folder, silent())
    assert caught.value.exit_code == 13
    assert not (folder / "checkpoint.safetensors").exists()


def test_a_scenario_edited_since_is_noticed(tmp_path: Path, tiny_base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = stopped(tmp_path, tiny_base, monkeypatch, "federate")
    kept = json.loads((folder / "scenario.json").read_bytes())
    kept["plan"]["rounds"] = 3
    (folder / "scenario.json").write_text(json.dumps(kept))
    with pytest.raises(IntegrityError):
        resume_run(folder, silent())


@pytest.mark.parametrize("name", ["scenario.json", "plan.json"])
def test_a_damaged_file_of_a_run_is_one_sentence(
    tmp_path: Path, tiny_base: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    folder = stopped(tmp_path, tiny_base, monkeypatch, "federate")
    (folder / name).write_text("{")
    with pytest.raises(IntegrityError, match=name):
        resume_run(folder, silent())


# --- refused before it begins --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("override", "found"),
    [
        ("plan.privacy.sampling_rate=0.01", "hospital-1: draw"),
        ("plan.adapter.targets=['query', 'keyy']", "keyy"),
        ("plan.adapter.top_layers=9", "adapter.top_layers must be at most the base's 3 layers (found 9)"),
        ("hospitals.count=50", "17 patients cannot be dealt out to 50 sites"),
    ],
)
def test_a_failed_check_leaves_no_folder(tmp_path: Path, tiny_base: Path, override: str, found: str) -> None:
    with pytest.raises(ConfigError) as caught:
        start(tmp_path, tiny_base, override)
    assert found in f"{caught.value} {caught.value.problems}"
    assert caught.value.exit_code == 3
    assert not (tmp_path / "runs").exists()


def test_wrong_gradients_stop_a_run_before_it_begins(
    tmp_path: Path, tiny_base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from client.training import self_test

    right = self_test.loop_gradients
    monkeypatch.setattr(self_test, "loop_gradients", lambda *a, **k: 1.1 * right(*a, **k))
    with pytest.raises(IntegrityError, match="differ from a plain loop"):
        start(tmp_path, tiny_base)
    assert not (tmp_path / "runs").exists()


# --- one process a folder ------------------------------------------------------------------------------------------


def test_a_second_process_in_a_folder_is_told_to_try_again(
    tmp_path: Path, tiny_base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = stopped(tmp_path, tiny_base, monkeypatch, "federate")
    holder = (
        "import fcntl, sys; lock = open(sys.argv[1], 'w'); fcntl.flock(lock, fcntl.LOCK_EX);"
        "print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", holder, str(folder / ".lock")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(TryAgainError, match="another process runs in") as caught:
            resume_run(folder, silent())
        other.communicate()
    assert caught.value.exit_code == 75
    assert not is_finished(folder)
    resume_run(folder, silent())
    assert is_finished(folder)


def test_the_lock_is_held_while_a_run_goes_on(tmp_path: Path, tiny_base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    federate, seen = simulations.run.federate, []

    def watched(setting: object, *arguments: object, **options: object) -> object:
        with (only_run(tmp_path) / ".lock").open("w") as lock, pytest.raises(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        seen.append(setting)
        return federate(setting, *arguments, **options)

    monkeypatch.setattr(simulations.run, "federate", watched)
    start(tmp_path, tiny_base)
    assert len(seen) == 1


# --- pieces --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["_prepare", "federate"])
def test_an_interrupt_says_how_to_go_on(
    tmp_path: Path, tiny_base: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(simulations.run, name, interrupt)
    with pytest.raises(CloisterError, match="interrupted") as caught:
        start(tmp_path, tiny_base)
    assert caught.value.hint == f"go on with: cloister-simulate run --resume {only_run(tmp_path)}"
    assert not is_finished(only_run(tmp_path))


def test_two_runs_in_one_second_get_folders_of_their_own(tmp_path: Path) -> None:
    folders = [new_folder(tmp_path / "runs", "study") for _ in range(3)]
    assert len(set(folders)) == 3
    assert all(folder.is_dir() and folder.name.startswith("study-") for folder in folders)


def test_the_test_set_is_watched_only_where_it_was_asked_for(
    tmp_path: Path, tiny_base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[WatchedEvaluator] = []
    real = simulations.run.federate

    def watched(setting: object, *arguments: object, **options: object) -> object:
        seen.append(setting.evaluator)
        return real(setting, *arguments, **options)

    monkeypatch.setattr(simulations.run, "federate", watched)
    run = start(tmp_path, tiny_base, "measure.test_every_round=false")
    assert (seen[0].test_every_round, tuple(seen[0].training)) == (False, ())
    metrics = results_of(run.folder)["rounds"][0]["validation"]["metrics"]
    assert not [name for name in metrics if name.startswith(("test_", "train_"))]
    assert np.isfinite(results_of(run.folder)["test"]["loss"])


def test_a_resumed_run_shows_the_rounds_that_were_done(
    tmp_path: Path, tiny_base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = stopped(tmp_path, tiny_base, monkeypatch, "_finish")
    watch, told = simulations.run.watch, []

    def watched(console: Console, sites: tuple[str, ...], rounds: int, done: int) -> object:
        told.append((sites, rounds, done))
        return watch(console, sites, rounds, done)

    monkeypatch.setattr(simulations.run, "watch", watched)
    resume_run(folder, silent())
    assert told == [(("hospital-1", "hospital-2"), 2, 2)]
