"""Steps 1 to 4: agree on the keys of a session and have every site deal its shares."""

from __future__ import annotations

from common.identity import SIGNATURE_BYTES
from common.plan import Plan
from common.secagg.keys import keys_size
from common.secagg.messages import SessionInvite, SessionKeys, SessionRoster, SessionShares
from common.secagg.sealing import SEALED_BYTES
from common.wire import encode, frame_bound
from server.replies import Exchanges
from server.secagg import Session, good_keys, good_shares, neighbours_in
from server.state import FaultKind


def open_session(
    plan: Plan, sites: tuple[str, ...], session_id: str, first_round: int, exchanges: Exchanges
) -> Session | None:
    """Open a session for the rounds to come, as many as the plan's sessions have.

    Args:
        plan: The plan.
        sites: Who is invited.
        session_id: 64 hexadecimal digits that no session had before.
        first_round: Its first round.
        exchanges: Where it is asked.

    Returns:
        The session, or None when fewer sites than the threshold finished the set-up.
    """
    rounds = min(plan.secure_aggregation.session_rounds, plan.rounds - first_round + 1)
    invite = SessionInvite(plan.digest, session_id, first_round, rounds)
    keys = _collect_keys(plan, sites, invite, exchanges)
    if len(keys) < plan.parameters.threshold:
        return None
    roster = SessionRoster.of(keys)
    session = Session(plan, roster, _collect_shares(plan, roster, exchanges))
    return session if len(session.cohort) >= plan.parameters.threshold else None


def _collect_keys(plan: Plan, sites: tuple[str, ...], invite: SessionInvite, exchanges: Exchanges) -> list[SessionKeys]:
    def fault_of(part: SessionKeys) -> FaultKind | None:
        if (part.session, part.first_round, part.rounds) != (invite.session, invite.first_round, invite.rounds):
            return "other-round"
        return None if good_keys(part, plan) else "bad-signature"

    limit = frame_bound(0) + keys_size(invite.rounds) + SIGNATURE_BYTES
    return list(exchanges.ask(dict.fromkeys(sites, encode(invite)), SessionKeys, fault_of, limit_bytes=limit))


def _collect_shares(plan: Plan, roster: SessionRoster, exchanges: Exchanges) -> dict[str, SessionShares]:
    neighbours = neighbours_in(plan, roster)

    def fault_of(shares: SessionShares) -> FaultKind | None:
        if shares.session != roster.session:
            return "other-round"
        return None if good_shares(shares, roster, neighbours[shares.site]) else "wrong-shape"

    limit = frame_bound(0) + len(roster.sites) * roster.rounds * SEALED_BYTES
    requests = dict.fromkeys(roster.sites, encode(roster))
    return {shares.site: shares for shares in exchanges.ask(requests, SessionShares, fault_of, limit_bytes=limit)}
