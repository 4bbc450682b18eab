"""Why a hospital does not take part in a plan: codes that travel, and the words that both sides show for them.

A code says which kind of limit is in the way. It never says where the limit lies: that stays in the hospital.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

PolicyCode = Literal[
    "not-in-roster",
    "other-coordinator",
    "plan-expired",
    "plan-not-yet-valid",
    "validity-too-long",
    "policy-expired",
    "not-approved",
    "other-unit",
    "impossible-mechanism",
    "too-little-noise",
    "epsilon-too-high",
    "delta-too-high",
    "sampling-rate-too-high",
    "too-many-rounds",
    "too-many-local-steps",
    "other-mode",
    "not-masked",
    "too-few-sites",
    "cohort-too-small",
    "threshold-too-low",
    "too-few-colluders",
    "honest-share-too-high",
    "other-base",
    "base-not-local",
    "other-task",
    "other-method",
    "other-targets",
    "too-many-trained-values",
    "other-evaluation",
    "other-release",
]
"""Which limit of a site's policy a plan breaks; one code a limit."""

POLICY_WORDS: Mapping[str, str] = {
    "not-in-roster": "the plan's roster does not name this site with its key",
    "other-coordinator": "the plan is signed by a coordinator that this site's policy does not name",
    "plan-expired": "the plan is no longer valid",
    "plan-not-yet-valid": "the plan was signed in this site's future; a clock is wrong",
    "validity-too-long": "the plan is valid for longer than this site agrees to",
    "policy-expired": "this site's policy has expired, and nobody has renewed it yet",
    "not-approved": "nobody at this site has approved the plan yet",
    "other-unit": "the plan protects another unit than this site demands",
    "impossible-mechanism": "the cost in ε cannot be worked out from the plan's constants",
    "too-little-noise": "the noise is below this site's floor",
    "epsilon-too-high": "the run costs more ε than this site allows a run",
    "delta-too-high": "the plan's δ is above this site's limit",
    "sampling-rate-too-high": "the sampling rate is above this site's limit",
    "too-many-rounds": "the plan has more rounds than this site agrees to",
    "too-many-local-steps": "the plan has more local steps a round than this site agrees to",
    "other-mode": "this site does not take part in plans of this mode",
    "not-masked": "this site sends masked numbers only",
    "too-few-sites": "too few sites take part",
    "cohort-too-small": "a round may be made of too few sites",
    "threshold-too-low": "too few sites have to agree before a sum is unmasked",
    "too-few-colluders": "the plan tolerates too few colluding sites",
    "honest-share-too-high": "the noise relies on too large a share of the sites being honest",
    "other-base": "the base model is not one that this site allows",
    "base-not-local": "this site trains only on a base model that its own people have put there",
    "other-task": "this site does not take part in tasks of this kind",
    "other-method": "this site does not allow the plan's adapter method",
    "other-targets": "this site does not allow adapters in these modules",
    "too-many-trained-values": "the plan trains more values than this site allows",
    "other-evaluation": "this site does not agree to how the model is judged",
    "other-release": "something would leave this site that its policy does not let out",
}
"""Each reason in words that fit both sides' status."""

REFUSAL_WORDS: Mapping[str, str] = {
    "malformed": "the request could not be read",
    "other-plan": "the request is not of the plan that the site runs",
    "wrong-shape": "the model sent has another number of values than the site's",
    "unexpected-round": "the round is past, not begun, or beyond the plan's last",
    "conflicting-order": "the site has taken another order for this round already",
    "no-update": "the round was charged, but training gave nothing that may leave",
    "other-session": "the request is not of the session that the site is in",
    "bad-keys": "the session's keys are not those of the plan's roster",
    "bad-cohort": "the cohort or the survivors are too few, or not of this session",
    "other-context": "a survivor's reply is not for the roster, cohort, round and model that the site knows",
    "conflicting-survivors": "the site has agreed to other survivors in this round already",
    "too-few-consents": "too few sites have signed the set of survivors",
    "misaddressed": "the request is for another site or federation, or not signed by its coordinator",
    "past-sequence": "the request is older than one that the site has answered",
    "far-sequence": "the request is numbered too far beyond the last one that the site has taken in",
    "rolled-back": "the coordinator remembers answers that the site has lost; an older copy was put back",
    "not-taking-part": "the site does not take part in the plan, or not any more",
    "not-ready": "the site could not make itself ready; its own log says why",
    "bad-share": "a sealed share was changed, or is for another site or round",
}
"""Each refusal of a request within a run, likewise."""

_WORDS: Mapping[str, str] = {
    **POLICY_WORDS,
    **REFUSAL_WORDS,
    "over-budget": "the site's privacy budget does not cover the run",
    "data-unfit": "the site's data do not fit the plan",
    "paused": "the site is paused by its own people",
}


def in_words(code: str) -> str:
    """A code as a clause that can follow a site's name and a colon.

    Edge cases:
        A code of a newer version is shown as it is; the wire lets nothing but short labels through.

    Args:
        code: One of `PolicyCode` or `common.fields.RefusalCode`, or `over-budget`, `data-unfit`, `paused`.
    """
    return _WORDS.get(code, f"a reason that this version does not know ({code})")
