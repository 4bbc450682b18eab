"""The lies of a hostile coordinator, one function each; `curious_server` tells them all and looks what came of it.

Each begins with new hospitals and follows the protocol up to its lie. It goes on as if the lie had worked, so that it
would work if a hospital did not see it.
"""

from __future__ import annotations

from dataclasses import replace

from client.session_view import SessionView
from common.identity import new_identity, sign
from common.secagg.keys import SessionSecret, public_bytes, seed_commitment
from common.secagg.messages import KEY_PURPOSE, Reveal, SessionKeys, SessionRoster, join
from simulations.attacks.coordinator import HostileCoordinator
from simulations.attacks.hospitals import HONEST, NAMES, PowerCut, make_plan

OTHER_SESSION = "a5" * 32


# --- lies about keys ---


def swap_keys(server: HostileCoordinator) -> None:
    """Show east the coordinator's own keys as those of north and south, and read along."""
    parts = server.invite()
    secrets = {name: _new_secret(parts[name]) for name in ("north", "south")}
    false = {name: _signed_by_a_stranger(parts[name], secret) for name, secret in secrets.items()}
    session = server.show(SessionRoster.of((parts | false).values()), to=["east"])
    if "east" not in session.dealt:
        return
    for name, secret in secrets.items():
        server.view.told(SessionView.of(name, server.plan, secret, session.roster), session.dealt)
    server.collect(session, server.order(session, cohort=NAMES), ["east"])


def invent_sites(server: HostileCoordinator) -> None:
    """Put hospitals into the roster that the plan does not know."""
    own = server.invite(names=["east"])["east"]
    models = [replace(own, site=f"sybil-{number}") for number in (1, 2, 3)]
    invented = [_signed_by_a_stranger(part, _new_secret(part)) for part in models]
    server.ask("east", SessionRoster.of([own, *invented]))


def _new_secret(like: SessionKeys) -> SessionSecret:
    return SessionSecret(SessionSecret.draw(), like.session)


def _signed_by_a_stranger(like: SessionKeys, secret: SessionSecret) -> SessionKeys:
    """Keys that the coordinator made, under a hospital's name."""
    made = [public_bytes(secret.channel_key())]
    for number in range(like.first_round, like.first_round + like.rounds):
        made += [public_bytes(secret.mask_key(number)), seed_commitment(secret.self_seed(number))]
    unsigned = replace(like, keys=join(made))
    return replace(unsigned, signature=join([sign(new_identity(), KEY_PURPOSE, unsigned.signed_content())]))


# --- different things to different hospitals ---


def split_rosters(server: HostileCoordinator) -> None:
    """Two rosters in one session: east and north are shown one, east and south another; a sum from each is wanted."""
    parts = server.invite()
    one = server.show(SessionRoster.of(parts[name] for name in ("east", "north", "west")))
    two = server.show(SessionRoster.of(parts[name] for name in ("east", "south", "west")))
    for session, names in ((one, ("east", "north", "west")), (two, ("east", "south", "west"))):
        order = server.order(session, cohort=names)
        server.collect(session, order, names)
        if len(session.dealt) == len(names):
            server.open_sum(session, order, names, names)


def split_models(server: HostileCoordinator) -> None:
    """East gets another model than the others, so that its numbers show in what comes out."""
    session = server.open_session()
    to_one, to_others = server.order(session, model=1.0), server.order(session)
    server.collect(session, to_one, ["east"])
    server.collect(session, to_others, ["north", "south", "west"])
    server.open_sum(session, to_others, HONEST, ["north", "south", "west"])
    server.open_sum(session, to_one, HONEST, ["east"])


def split_cohorts(server: HostileCoordinator) -> None:
    """East believes in a cohort without south; the others in one of all four."""
    session = server.open_session()
    small = server.order(session, cohort=("east", "north", "west"))
    whole = server.order(session)
    server.collect(session, small, ["east", "west"])
    server.collect(session, whole, ["north", "south"])
    server.open_sum(session, small, ("east", "north", "west"), ["east", "west"])
    server.open_sum(session, whole, HONEST, ["north", "south", "west"])


def two_contexts(server: HostileCoordinator) -> None:
    """East masks for a cohort without north; the others, in one of all four, hear that east survived and south not."""
    # East's self mask would open as a survivor's, and south's mask key as a missing hospital's; the mask that west and
    # east share is told, and with north east has none.
    session = server.open_session()
    small, whole = server.order(session, cohort=("east", "south", "west")), server.order(session)
    server.collect(session, small, ["east"])
    server.collect(session, whole, ["north", "south"])
    server.open_sum(session, whole, ("east", "north", "west"), ["north", "south", "west"])


def split_survivors(server: HostileCoordinator) -> None:
    """East and north are told that north survived, south that it did not: both secrets of north are wanted."""
    session = server.open_session()
    order = server.order(session)
    server.collect(session, order)
    server.open_sum(session, order, HONEST, ["east", "north", "west"])
    server.open_sum(session, order, ("east", "south", "west"), ["south", "west"])


# --- too few ---


def cohort_of_one(server: HostileCoordinator) -> None:
    """Ask east for numbers with the colluder's mask alone beside its own, then with its own alone."""
    session = server.open_session()
    order = server.order(session, cohort=("east", "west"))
    server.collect(session, order, ["east"])
    server.open_sum(session, order, ("east", "west"), HONEST)
    server.collect(session, server.order(session, 2, cohort=("east",)), ["east"])


def survivor_set_of_one(server: HostileCoordinator) -> None:
    """After an honest exchange, say that only east's numbers came in."""
    session = server.open_session()
    order = server.order(session)
    server.collect(session, order)
    for survivors in (("east",), ("east", "west")):
        server.open_sum(session, order, survivors, NAMES)


def lowered_threshold(server: HostileCoordinator) -> None:
    """Send a plan's digest with a lower threshold; then show two consents where three are needed."""
    session = server.open_session()
    lower = make_plan(dict(server.plan.roster), dropouts=0)
    server.collect(session, replace(server.order(session, cohort=("east", "west")), plan_digest=lower.digest), ["east"])
    order = server.order(session)
    server.collect(session, order)
    consents = server.consents(session, order, HONEST, ["east", "west"])
    server.reveals(session, order, HONEST, consents, HONEST)


# --- the same again ---


def double_reveal(server: HostileCoordinator) -> None:
    """After a good round, ask for the other share of north and south by naming other survivors."""
    session = server.open_session()
    order = server.play(session)
    for survivors in (("east", "north", "west"), ("east", "south", "west")):
        server.open_sum(session, order, survivors, NAMES)


def shares_of_another_round(server: HostileCoordinator) -> None:
    """Give up round 1 after the replies; bring its sealed shares to the reveal of round 2."""
    session = server.open_session()
    server.collect(session, server.order(session, 1))
    order = server.order(session, 2)
    server.collect(session, order, HONEST)
    asked = server.survivor_set(session, order, HONEST)
    consents = server.consents(session, order, HONEST, NAMES)
    for name in HONEST:
        request = server.reveal_request(session, order, asked, consents, name)
        earlier = [session.sealed(dealer, name, 1).tobytes() for dealer in request.dealers]
        answer = server.ask(name, replace(request, sealed=join(earlier)))
        if isinstance(answer, Reveal):
            server.view.reveal(session.roster, replace(asked, round_number=1), answer)


def replayed_round(server: HostileCoordinator) -> None:
    """Ask for round 1 a second time, with another model, right after it and again after round 2."""
    session = server.open_session()
    for number in (1, 2):
        server.play(session, number)
        again = server.order(session, 1, model=1.0)
        server.collect(session, again, HONEST)
        server.open_sum(session, again, HONEST, HONEST)


def order_after_a_kill(server: HostileCoordinator) -> None:
    """East's process dies in training; when it is back, ask for the same round on another model, then on the first."""
    session = server.open_session()
    order, other = server.order(session), server.order(session, model=1.0)
    server.study.hospitals["east"].cut_power_once()
    try:
        server.ask("east", order)
    except PowerCut:
        server.study.hospitals["east"].start()
    server.collect(session, other, ["east"])
    server.collect(session, order, HONEST)
    server.open_sum(session, order, HONEST, NAMES)


def old_session(server: HostileCoordinator) -> None:
    """Go back to a session that was given up: its order, its survivors, its reveal, and its very invitation."""
    first = server.open_session()
    order = server.order(first)
    server.collect(first, order)
    server.open_session(OTHER_SESSION, first_round=2)
    server.open_sum(first, order, HONEST, NAMES)
    server.collect(first, server.order(first, 2), HONEST)
    again = server.invite(first_round=2)
    server.show(SessionRoster.of((first.parts | {"east": again["east"]}).values()), to=["east"])


def abort_and_retry(server: HostileCoordinator) -> None:
    """Give up every round after its replies, and open a new session for the next; open the last."""
    rounds = []
    for number in (1, 2, 3):
        session = server.open_session(f"{number:064}", number)
        rounds.append((session, server.order(session, number)))
        server.collect(*rounds[-1])
        for given_up in rounds[:-1]:
            server.open_sum(*given_up, HONEST, NAMES)
    server.open_sum(*rounds[-1], HONEST, NAMES)


# --- signatures that are missing ---


def no_consents(server: HostileCoordinator) -> None:
    """Ask for shares with a colluder's signature under every name."""
    session = server.open_session()
    order = server.order(session)
    server.collect(session, order)
    own = server.signature_of("west", session, order, HONEST)
    server.reveals(session, order, HONEST, dict.fromkeys(NAMES, own), HONEST)


def survivor_without_numbers(server: HostileCoordinator) -> None:
    """East's training fails; name it a survivor all the same."""
    session = server.open_session()
    order = server.order(session)
    server.study.hospitals["east"].fail_once()
    server.collect(session, order)
    server.open_sum(session, order, HONEST, NAMES)


# --- lies that a hospital cannot see, and need not ---


def colluder_tells_all(server: HostileCoordinator) -> None:
    """No lie at all: west gives away its secret, and every share that was dealt to it."""
    server.play(server.open_session())


def late_reply(server: HostileCoordinator) -> None:
    """Call east missing, open its mask key, and only then ask for its numbers."""
    session = server.open_session()
    order = server.order(session)
    others = ("north", "south", "west")
    server.collect(session, order, others)
    server.open_sum(session, order, others, others)
    server.collect(session, order, ["east"])
    server.open_sum(session, order, HONEST, ["east"])


# --- beyond what is promised ---


def two_colluders(server: HostileCoordinator) -> None:
    """One colluder more than the plan tolerates: south tells all too, and north is called missing."""
    server.colluders = ("south", "west")
    session = server.open_session()
    order = server.order(session)
    server.collect(session, order)
    server.open_sum(session, order, ("east", "south", "west"), NAMES)


def three_shares(server: HostileCoordinator) -> None:
    """As many hospitals as the threshold tell all: their shares open east's secret, and nothing has to be asked."""
    server.colluders = ("north", "south", "west")
    session = server.open_session()
    server.collect(session, server.order(session), ["east"])


def restored_book(server: HostileCoordinator) -> None:
    """East's administrator restores yesterday's book of charges: the same order is answered twice, under one mask."""
    session = server.open_session()
    east = server.study.hospitals["east"]
    backup = (east.folder / "charges.book").read_bytes()
    order = server.order(session)
    server.collect(session, order, ["east"])
    (east.folder / "charges.book").write_bytes(backup)
    east.start()
    server.collect(session, order, ["east"])
