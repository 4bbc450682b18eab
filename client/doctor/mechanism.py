"""What `cloister-site doctor` computes: gradients, masks and noise of this machine against what they must be.

Nothing of the hospital's is touched: models, records and secrets here are made up, except for the base models that
`--deep` loads.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from scipy.stats import chi2

from client.config import SiteConfig, load_site_config
from client.doctor.files import is_enrolled, kept_plans
from client.home import SiteHome
from client.training.noise import rounded_gaussian
from client.training.skellam import skellam
from common.base_files import find_copy
from common.errors import IntegrityError
from common.findings import Finding
from common.randomness import SecretSource
from common.secagg import shamir
from common.secagg.keys import SessionSecret, public_bytes
from common.secagg.masking import add_masks, pairwise_seed, pairwise_sign, round_context, self_mask_seed

if TYPE_CHECKING:
    from common.plan import Plan

FALSE_ALARM = 1e-9
"""A right sampler is called wrong with this probability."""

_DRAWS = 20_000
_SCALE = 1024.0
_STOP = "do not take part until the cause is found: install Cloister anew, and compare with another machine"

Integers = npt.NDArray[np.int64]


# --- gradients -------------------------------------------------------------------------------------------------------


def gradient_findings(home: SiteHome, *, deep: bool) -> Iterator[Finding]:
    """Whether per-record gradients by hooks are those of a plain loop: the bound on a patient stands on that.

    Args:
        home: The site's home.
        deep: Look at the base of every kept plan that is here, too; loading one may take minutes.
    """
    from client.doctor.model import check_small_model  # noqa: PLC0415 - torch, which the other checks do without

    yield Finding("pass", "gradients", f"hooks and a plain loop differ by {check_small_model():.0e} on a small model")
    if deep and is_enrolled(home):
        config = load_site_config(home.config)
        for signed in kept_plans(home):
            yield _real_gradients(home, signed.plan, config)


def _real_gradients(home: SiteHome, plan: Plan, config: SiteConfig) -> Finding:
    from client.doctor.model import check_real_model  # noqa: PLC0415 - as above

    # Not by the cache of bases, which throws a damaged one away: a doctor changes nothing.
    folder = find_copy((str(home.bases / plan.base.digest), *config.base.local), plan.base)
    if folder is None:
        return Finding("pass", "gradients", f"the base model of {plan.name} is not here")
    error = check_real_model(folder, plan, config.compute)
    return Finding("pass", "gradients", f"they differ by {error:.0e} on the base model of {plan.name}")


# --- masks -----------------------------------------------------------------------------------------------------------


def mask_findings() -> Iterator[Finding]:
    """Whether keys, shares and masks come out as in a round that another implementation computed.

    Raises:
        IntegrityError: When a byte differs.
    """
    vector = json.loads((files("client") / "vectors" / "secagg.json").read_text(encoding="ascii"))
    for name in vector["sites"]:
        _refuse_other(_keys_of(vector, name), vector["sites"][name], f"the keys of site {name}")
        _refuse_other(_secrets_behind_shares(vector, name), _first_secrets(vector, name), f"the secrets of {name}")
    _refuse_other(_context(vector), vector["round"]["context"], "the context of the round")
    for name, masked in vector["masked"].items():
        _refuse_other(_masked(vector, name).tolist(), masked, f"the masked numbers of site {name}")
    sentence = f"keys, shares and masks of {len(vector['sites'])} sites come out to the byte"
    yield Finding("pass", "masks", sentence)


def _refuse_other(found: object, expected: object, name: str) -> None:
    if found != expected and not _is_part(found, expected):
        raise IntegrityError(f"secure aggregation: {name} are not what they must be on this machine", hint=_STOP)


def _is_part(found: object, expected: object) -> bool:
    return isinstance(found, dict) and isinstance(expected, dict) and found.items() <= expected.items()


def _secret(vector: dict[str, Any], name: str) -> SessionSecret:
    return SessionSecret(bytes.fromhex(vector["sites"][name]["session_secret"]), vector["session"])


def _keys_of(vector: dict[str, Any], name: str) -> dict[str, Any]:
    secret, rounds = _secret(vector, name), range(1, vector["rounds"] + 1)
    return {
        "channel_key": secret.channel_key().private_bytes_raw().hex(),
        "mask_keys": [secret.mask_key_bytes(number).hex() for number in rounds],
        "self_seeds": [secret.self_seed(number).hex() for number in rounds],
    }


def _secrets_behind_shares(vector: dict[str, Any], name: str) -> dict[str, str]:
    threshold, dealt = vector["parameters"]["share_threshold"], vector["sites"][name]["dealt_in_round_1"]
    points = {holder: vector["sites"][holder]["point"] for holder in dealt}
    return {
        kind: shamir.recover(
            {points[holder]: bytes.fromhex(pair[kind]) for holder, pair in dealt.items()}, threshold
        ).hex()
        for kind in ("mask key", "self seed")
    }


def _first_secrets(vector: dict[str, Any], name: str) -> dict[str, str]:
    site = vector["sites"][name]
    return {"mask key": site["mask_keys"][0], "self seed": site["self_seeds"][0]}


def _context(vector: dict[str, Any]) -> str:
    told = vector["round"]
    return round_context(vector["roster_digest"], told["cohort"], told["number"], told["model_digest"])


def _masked(vector: dict[str, Any], name: str) -> npt.NDArray[np.uint32]:
    """The numbers of a site as it would send them: with its own mask, and with one for each peer."""
    context, secret = _context(vector), _secret(vector, name)
    seeds = [(self_mask_seed(secret.self_seed(1), name, context), 1)]
    for peer in vector["round"]["cohort"]:
        if peer != name:
            other = public_bytes(_secret(vector, peer).mask_key(1))
            seeds.append((pairwise_seed(secret.mask_key(1), other, (name, peer), context), pairwise_sign(name, peer)))
    numbers = np.array(vector["sites"][name]["numbers"], dtype=np.int64).astype(np.uint32)
    return add_masks(numbers, seeds)


# --- noise -----------------------------------------------------------------------------------------------------------


def noise_findings() -> Iterator[Finding]:
    """Whether noise from this machine's secret source has the variance it must have, and is another each time."""
    samplers: dict[str, Callable[[], Integers]] = {
        "Gaussian noise": lambda: rounded_gaussian(_SCALE, _DRAWS, SecretSource()),
        "Skellam noise": lambda: skellam(_SCALE**2, _DRAWS, SecretSource()),
    }
    for name, draw in samplers.items():
        first, second = draw(), draw()
        faults = noise_faults(first, _SCALE)
        if np.array_equal(first, second):
            faults = (*faults, "comes again")
        if faults:
            yield Finding("fail", "noise", f"{name} {' and '.join(faults)}", _STOP)
        else:
            ratio = math.sqrt(float(np.mean(np.square(first.astype(np.float64))))) / _SCALE
            yield Finding("pass", "noise", f"{name} has {ratio:.3f} of its scale in {_DRAWS} draws")


def noise_faults(draws: Integers, scale: float) -> tuple[str, ...]:
    """What is wrong with draws that should be independent, of mean 0 and variance `scale`².

    Guarantees:
        Noise of the right law is accepted but for a probability of 2 × `FALSE_ALARM`. At 20,000 draws, 2/3 and 3/2 of
        the scale are rejected always, and one that is 4 % off with a probability above 99 %.

    Source: the sum of squares of N normal variables is chi-square distributed with N degrees of freedom; at scales of
        many grid steps rounding changes it by less than 1e-6.
    """
    squares = float(np.sum(np.square(draws.astype(np.float64)))) / scale**2
    low, high = chi2.ppf(FALSE_ALARM / 2, len(draws)), chi2.isf(FALSE_ALARM / 2, len(draws))
    mean = float(np.mean(draws.astype(np.float64))) / scale * math.sqrt(len(draws))
    most = math.sqrt(float(chi2.isf(FALSE_ALARM, 1)))
    faults = []
    if not low <= squares <= high:
        faults.append(f"has {math.sqrt(squares / len(draws)):.3f} of the scale that it must have")
    if not abs(mean) <= most:
        faults.append("is not balanced around 0")
    return tuple(faults)
