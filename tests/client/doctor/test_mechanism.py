import json
from pathlib import Path

import numpy as np
import pytest

from client.doctor import mechanism as doctor_mechanism
from client.doctor import model as doctor_model
from client.doctor.mechanism import gradient_findings, mask_findings, noise_faults, noise_findings
from client.home import SiteHome
from common.errors import IntegrityError
from common.secagg import keys, masking, prg, shamir
from common.secagg.keys import SessionSecret
from tests.sources import SeededSource
from tests.vectors.secagg.play import SURVIVORS, Play

VECTORS = Path(__file__).parents[2] / "vectors" / "secagg" / "good.json"
SHIPPED = Path(doctor_mechanism.__file__).parent.parent / "vectors" / "secagg.json"


def shipped() -> str:
    """What the wheel carries: the good round by the second implementation, its numbers instead of its messages."""
    good = json.loads(VECTORS.read_text(encoding="ascii"))
    del good["frames"]
    return json.dumps({**good, "masked": {name: Play().masked(name) for name in SURVIVORS}}, indent=1) + "\n"


def test_the_shipped_vectors_are_those_of_the_tests() -> None:
    assert SHIPPED.read_text(encoding="ascii") == shipped()


def test_masks_pass() -> None:
    (finding,) = mask_findings()
    assert (finding.level, finding.subject) == ("pass", "masks")


def other_derivation(patch: pytest.MonkeyPatch) -> None:
    right = keys.derive
    patch.setattr(keys, "derive", lambda secret, *labels: right(secret, *labels, "more"))


PLANTED = {
    "keys are derived with another label": other_derivation,
    "a session's secret is another": lambda patch: patch.setattr(SessionSecret, "self_seed", lambda *_: bytes(32)),
    "masks are not added": lambda patch: patch.setattr(
        masking.prg, "mask", lambda _, count: np.zeros(count, np.uint32)
    ),
    "a mask's seed is cut": lambda patch: patch.setattr(
        masking.prg, "mask", lambda seed, count, right=prg.mask: right(seed[:4] + bytes(28), count)
    ),
    "both sides of a pair add": lambda patch: patch.setattr(doctor_mechanism, "pairwise_sign", lambda *_: 1),
    "shares are of another field": lambda patch: patch.setattr(shamir, "PRIME", (1 << 256) - 189),
    "the round's context leaves the cohort out": lambda patch: patch.setattr(
        doctor_mechanism, "round_context", lambda roster, _, number, model: masking.digest([roster, number, model])
    ),
}


@pytest.mark.parametrize("fault", PLANTED)
def test_a_fault_in_secure_aggregation_is_found(monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
    PLANTED[fault](monkeypatch)
    with pytest.raises(IntegrityError, match=r"are not what they must be|belong to one"):
        list(mask_findings())


# --- noise -----------------------------------------------------------------------------------------------------------


def test_noise_passes() -> None:
    assert [finding.level for finding in noise_findings()] == ["pass", "pass"]


def normal(count: int, scale: float, mean: float = 0.0) -> np.ndarray:
    """Whole numbers by Box and Muller, which is another way than the samplers go."""
    radius, angle = SeededSource(1).uniform(count), SeededSource(2).uniform(count)
    return np.rint(scale * (np.sqrt(-2 * np.log(radius)) * np.cos(2 * np.pi * angle) + mean)).astype(np.int64)


@pytest.mark.parametrize("count", [500, 20_000])
def test_noise_of_the_right_law_is_accepted(count: int) -> None:
    assert noise_faults(normal(count, 1024.0), 1024.0) == ()


@pytest.mark.parametrize("factor", [0.0, 2 / 3, 0.95, 1.05, 3 / 2])
def test_noise_of_another_scale_is_rejected(factor: float) -> None:
    assert any("of the scale" in fault for fault in noise_faults(normal(20_000, 1024.0 * factor), 1024.0))


def test_noise_that_leans_to_one_side_is_rejected() -> None:
    assert noise_faults(normal(20_000, 1024.0, mean=0.06), 1024.0) == ("is not balanced around 0",)


@pytest.mark.parametrize("sampler", ["rounded_gaussian", "skellam"])
def test_a_sampler_that_adds_too_little_is_found(monkeypatch: pytest.MonkeyPatch, sampler: str) -> None:
    right = getattr(doctor_mechanism, sampler)
    monkeypatch.setattr(doctor_mechanism, sampler, lambda scale, count, source: right(scale / 2, count, source))
    assert sorted(finding.level for finding in noise_findings()) == ["fail", "pass"]


def test_noise_that_comes_again_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor_mechanism, "SecretSource", lambda: SeededSource(7))
    assert [("comes again" in finding.sentence, finding.level) for finding in noise_findings()] == [(True, "fail")] * 2


# --- gradients -------------------------------------------------------------------------------------------------------


def test_gradients_of_the_small_model(tmp_path: Path) -> None:
    (finding,) = gradient_findings(SiteHome(tmp_path), deep=True)  # not enrolled: no plans, so no real base
    assert finding.level == "pass"


def test_wrong_gradients_are_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong() -> float:
        raise IntegrityError("per-record gradients of this model differ")

    monkeypatch.setattr(doctor_model, "check_small_model", wrong)
    with pytest.raises(IntegrityError):
        list(gradient_findings(SiteHome(tmp_path), deep=False))
