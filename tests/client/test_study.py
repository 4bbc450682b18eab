"""What is done first when a study opens; its parts are stand-ins here, and real ones in test_whole_study.py."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
from structlog.testing import capture_logs

import client.study
from client.study import StudyParts, open_study
from common.columns import DataColumns
from common.errors import BudgetError, ConfigError, DataError, IntegrityError, RollbackError
from common.findings import Finding
from common.records.sources import Reading
from tests.client.small_plan import small_plan

PLAN = small_plan()
ORDER = ["book", "base", "architecture", "gradients", "admit", "records", "node"]


@pytest.fixture
def happened(monkeypatch):
    """The steps of opening a study, in the order in which they come; one that is in `faults` fails."""
    steps, faults = [], {}

    def step(name, result=None):
        def run(*_, **__):
            steps.append(name)
            if name in faults:
                raise faults[name]
            return result

        return run

    model = SimpleNamespace(spec=SimpleNamespace(dimension=7), basis_spec=SimpleNamespace(dimension=2))
    replaced = {
        "Charges": step("book"),
        "load_base": step("base", SimpleNamespace(identity=PLAN.base, encoder=None)),
        "refuse_unfit_architecture": step("architecture"),
        "TrainableModel": lambda *_: model,
        "check_gradients": step("gradients"),
        "read_usable_records": step("records", Reading((), 0)),
        "check_records": lambda *_: (),
        "TrainingSet": SimpleNamespace(of=lambda *_: None),
        "build_trainer": lambda *_: None,
        "SiteNode": step("node", "the node"),
    }
    for name, stand_in in replaced.items():
        monkeypatch.setattr(client.study, name, stand_in)
    return SimpleNamespace(steps=steps, faults=faults, step=step)


@pytest.fixture
def parts(happened, tmp_path):
    config = SimpleNamespace(
        name="a", compute=None, train_files=(), data=SimpleNamespace(columns=DataColumns()), policy=SimpleNamespace()
    )
    admitted = []

    def admit(values):
        admitted.append(values)
        happened.step("admit")()

    made = StudyParts(
        plan=PLAN, config=config, identity=None, base=tmp_path, folder=tmp_path / "run", begun=False, witness=None,
        record=None, say=lambda _: None, admit=admit,
    )  # fmt: skip
    happened.admitted = admitted
    return made


def test_records_come_last_and_after_the_site_was_asked_with_d(happened, parts):
    assert open_study(parts) == "the node"
    assert happened.steps == ORDER
    assert happened.admitted == [7]
    assert parts.folder.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize(
    ("step", "error"),
    [
        ("book", RollbackError("put back")),
        ("base", IntegrityError("damaged")),
        ("architecture", ConfigError("mixes")),
        ("gradients", IntegrityError("wrong")),
        ("admit", BudgetError("nothing is left")),
    ],
)
def test_what_fails_earlier_touches_no_record(happened, parts, step, error):
    happened.faults[step] = error
    with pytest.raises(type(error)):
        open_study(parts)
    assert happened.steps == ORDER[: ORDER.index(step) + 1]


def test_a_base_that_changed_while_it_was_loaded_is_refused(happened, parts, monkeypatch):
    monkeypatch.setattr(client.study, "load_base", lambda *_: SimpleNamespace(identity="another"))
    with pytest.raises(IntegrityError, match="changed while it was loaded"):
        open_study(parts)
    assert happened.admitted == []


def test_rows_that_do_not_fit_are_a_number_in_the_log_and_no_error(happened, parts, monkeypatch):
    failed = Finding("fail", "rows", "there are no rows", "point the config at the right files")
    monkeypatch.setattr(client.study, "read_usable_records", lambda *_: Reading((), 3))
    monkeypatch.setattr(client.study, "check_records", lambda *_: (failed, replace(failed, level="warn")))
    with capture_logs() as said:
        assert open_study(parts) == "the node"
    (line,) = said
    assert (line["log_level"], line["rows_left_out"], line["checks_failed"]) == ("warning", 3, 1)
    assert set(line) == {"event", "log_level", "rows_left_out", "checks_failed", "hint"}


def test_rows_that_fit_are_not_worth_a_word(happened, parts):
    with capture_logs() as said:
        open_study(parts)
    assert said == []


def test_a_plan_for_patients_needs_their_column_whatever_the_records_say(happened, parts):
    parts.config.data.columns = DataColumns(patient=None)
    with pytest.raises(DataError, match="names no column that says whose a row is"):
        open_study(parts)
    assert "records" not in happened.steps
