import pytest

from server.progress import PhaseProgress, RoundProgress, SiteProgress
from server.run_words import event_words, next_step, phase_words, round_words, site_words
from tests.plans import make_plan


@pytest.mark.parametrize(
    ("site", "words"),
    [
        (SiteProgress("north", "silent"), "no answer yet"),
        (SiteProgress("north", "ready", fraction=1.0), "ready"),
        (SiteProgress("north", "fetching"), "fetches the base model"),
        (SiteProgress("north", "fetching", fraction=0.456), "fetches the base model, 46% of it are there"),
        (SiteProgress("north", "waiting", ("not-approved",)), "waits: nobody at this site has approved the plan yet"),
        (
            SiteProgress("north", "refused", ("epsilon-too-high", "paused")),
            "refuses: the run costs more ε than this site allows a run; the site is paused by its own people",
        ),
        (
            SiteProgress("north", "not-ready", ("new-code",)),
            "is not ready: a reason that this version does not know (new-code)",
        ),
    ],
)
def test_sites_in_words(site, words):
    assert site_words(site) == words
    assert event_words(site, make_plan()) == f"north: {words}"


def test_a_round_in_words():
    event = RoundProgress(2, 1, 1.234, 0.51, {"loss": 0.5}, {"malformed": 1}, "nothing changed: too few sites", ("c",))
    words = round_words(event, make_plan())
    assert words.startswith("round 2/2  sites 1/2  ε 1.23  loss 0.5000  0.5 s  1 refused: ")
    assert words.endswith("  no answer: c  nothing changed: too few sites")


def test_an_end_says_how():
    assert phase_words(PhaseProgress("failed", "2 sites are ready")) == "failed: 2 sites are ready"
    assert phase_words(PhaseProgress("finished")) == "finished"


AGAIN = "`cloister-coordinator run 3f2a91c0 --resume` goes on"


@pytest.mark.parametrize(
    ("hint", "code", "step"),
    [
        ("approve it", 16, f"approve it; then {AGAIN}"),
        ("", 1, AGAIN),
        ("is the disk full? `run --resume` goes on", 1, "is the disk full? `run --resume` goes on"),
        ("restore that folder", 13, "restore that folder"),
        ("", 14, ""),
        ("leave one out", 2, "leave one out"),
        (
            "the plan lists yes, no",
            3,
            f"the plan lists yes, no; once that is mended on this machine, {AGAIN}; "
            "a plan that has to change is signed anew, and runs anew",
        ),
    ],
)
def test_resuming_is_offered_where_it_helps_the_plan_as_it_is(hint, code, step):
    assert next_step(PhaseProgress("failed", "it failed", hint, code), "3f2a91c0" + "0" * 56) == step


@pytest.mark.parametrize("phase", ["training", "finished", "stopped"])
def test_what_did_not_fail_needs_no_step(phase):
    assert next_step(PhaseProgress(phase), "0" * 64) == ""
