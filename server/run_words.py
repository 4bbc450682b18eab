"""A run's events in a person's words."""

from __future__ import annotations

from common.errors import ConfigError, IntegrityError, RollbackError, UsageError
from common.plan import Plan
from common.reasons import in_words
from server.progress import Event, PhaseProgress, RoundProgress, SiteProgress

_STATES = {
    "silent": "no answer yet",
    "waiting": "waits",
    "refused": "refuses",
    "accepted": "accepts",
    "fetching": "fetches the base model",
    "not-ready": "is not ready",
    "ready": "ready",
}
_PHASES = {
    "preparing": "preparing: this machine loads the base model and computes the public sets",
    "gathering": "gathering: the sites are shown the plan, and fetch the base model if they lack it",
    "training": "training begins",
    "finished": "finished",
    "stopped": "stopped",
    "failed": "failed",
}
_NO_USE_TO_RESUME = {kind.exit_code for kind in (UsageError, IntegrityError, RollbackError)}
"""Exit codes of ends that resuming alone would only repeat."""


def site_words(site: SiteProgress) -> str:
    """Where a site stands, with every reason."""
    words = _STATES[site.state]
    if site.state == "fetching" and site.fraction > 0:
        words += f", {site.fraction:.0%} of it are there"
    return ": ".join(part for part in (words, "; ".join(in_words(code) for code in site.codes)) if part)


def round_words(event: RoundProgress, plan: Plan) -> str:
    """One line for a finished round."""
    figures = [f"{name} {value:.4f}" for name, value in event.figures.items()]
    parts = [
        f"round {event.round_number}/{plan.rounds}",
        f"sites {event.survivors}/{plan.sites}",
        f"ε {event.epsilon:.2f}",
        *figures,
        f"{event.seconds:.1f} s",
        refusal_words(event),
        silence_words(event),
        event.remark,
    ]
    return "  ".join(part for part in parts if part)


def refusal_words(event: RoundProgress) -> str:
    """How many sites refused the round, by reason."""
    return "; ".join(f"{count} refused: {in_words(code)}" for code, count in event.refusals.items())


def silence_words(event: RoundProgress) -> str:
    """Who did not answer in the round."""
    return f"no answer: {', '.join(event.silent)}" if event.silent else ""


def event_words(event: Event, plan: Plan) -> str:
    """One line for any event."""
    if isinstance(event, SiteProgress):
        return f"{event.site}: {site_words(event)}"
    if isinstance(event, RoundProgress):
        return round_words(event, plan)
    return phase_words(event)


def phase_words(event: PhaseProgress) -> str:
    """What begins, or how it ended."""
    return f"{_PHASES[event.phase]}{': ' + event.sentence if event.sentence else ''}"


def next_step(end: PhaseProgress, digest: str) -> str:
    """What to do after a run that failed; that it can be resumed is said where that helps with the plan as it is.

    Args:
        end: How it ended; after any other phase there is nothing to do.
        digest: Of its plan.
    """
    if end.phase != "failed":
        return ""
    again = f"`cloister-coordinator run {digest[:8]} --resume` goes on"
    if "--resume" in end.hint or end.exit_code in _NO_USE_TO_RESUME:
        return end.hint
    if end.exit_code == ConfigError.exit_code:
        again = f"once that is mended on this machine, {again}; a plan that has to change is signed anew, and runs anew"
        return "; ".join(part for part in (end.hint, again) if part)
    return "; then ".join(part for part in (end.hint, again) if part)
