"""The vectors of secure aggregation: a whole round that must come out to the byte, and one fault at a time."""

import json
from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from structlog.testing import capture_logs

import client.secagg
import common.secagg.roster
from client.charges import Charges
from client.node import _MASKED_KINDS, SiteNode
from client.secagg import SiteHalf
from client.session import SessionBook
from common.errors import CloisterError
from common.identity import public_name
from common.messages import Refusal
from common.plan import Plan
from common.secagg import shamir
from common.secagg.keys import SessionSecret
from common.secagg.masking import model_digest, round_context
from common.secagg.messages import MaskedOrder, SessionRoster
from common.secagg.sealing import Channel, SharePair
from common.wire import KINDS, decode
from server.secagg import CoordinatorRound, Session
from tests.plans import make_plan
from tests.vectors.secagg.make import files

VECTORS = Path(__file__).parent.parent / "vectors" / "secagg"
GOOD = json.loads((VECTORS / "good.json").read_text(encoding="ascii"))
FRAMES = {name: bytes.fromhex(frame) for name, frame in GOOD["frames"].items()}
BAD = {path.stem.removeprefix("bad-"): json.loads(path.read_text("ascii")) for path in VECTORS.glob("bad-*.json")}
ANSWERS = {
    "invite": "keys",
    "roster": "shares",
    "order": "reply",
    "survivor-set": "consent",
    "reveal-request": "reveal",
}


class FixedNumbers:
    """A trainer that gives the vector's numbers, and counts how often it touched them."""

    def __init__(self, numbers):
        self.numbers, self.calls = np.int64(numbers), 0

    def train(self, _order):
        self.calls += 1
        return self.numbers


@pytest.fixture(autouse=True)
def plan(monkeypatch):
    """The vectors' study. Its digest is fixed, so that they stay when the plan learns a new setting."""
    monkeypatch.setattr(Plan, "digest", property(lambda _: GOOD["plan_digest"]))
    numbers = GOOD["parameters"]
    terms = {name: numbers[name] for name in ("tolerated_dropouts", "tolerated_colluders", "threshold")}
    roster = {name: site["identity"] for name, site in GOOD["sites"].items()}
    limits = {"masked": True, "session_rounds": GOOD["rounds"], **terms}
    return make_plan(sites=numbers["sites"], rounds=2, roster=roster, secure_aggregation=limits)


@pytest.fixture
def make_node(plan, monkeypatch, tmp_path):
    def make(name="east", place="first"):
        about = GOOD["sites"][name]
        folder = tmp_path / place / name
        folder.mkdir(parents=True)
        monkeypatch.setattr(SessionSecret, "draw", staticmethod(lambda: bytes.fromhex(about["session_secret"])))
        identity = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(about["identity_secret"]))
        assert public_name(identity) == about["identity"]
        half = SiteHalf(name, plan, identity, SessionBook(folder, plan.digest, name))
        return SiteNode(plan, FixedNumbers(about["numbers"]), Charges(folder, plan, name), half, dimension=3)

    return make


def asked(node, names):
    """Feed good frames to a node; each answer must be the good one."""
    for name in names:
        kind = next(kind for kind in ANSWERS if name.startswith(kind))
        answer = node.answer(FRAMES[name])
        good = FRAMES.get(f"{ANSWERS[kind]}-{node._name}")
        assert answer == good or name == "order-2", name


# --- the files -------------------------------------------------------------------------------------------------------


def test_the_vectors_on_disk_are_the_ones_the_script_writes():
    assert {path.name: path.read_text("ascii") for path in VECTORS.glob("*.json")} == files()


def test_the_faults_of_the_issue_are_all_there():
    assert BAD.keys() >= {
        "wrong-signature",
        "key-of-somebody-outside-the-roster",
        "swapped-keys",
        "repeated-key",
        "share-for-another-recipient",
        "share-from-another-round",
        "tampered-ciphertext",
        "survivor-set-that-differs",
        "reply-for-another-cohort",
        "double-reveal",
        "threshold-lowered",
        "replayed-round",
        "model-that-differs",
        "trailing-bytes",
    }


# --- the good round --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["east", "north", "south"])
def test_each_site_gives_the_good_answers_to_the_byte(make_node, name):
    node = make_node(name)
    asked(node, ["invite", "roster", "order", "survivor-set", f"reveal-request-{name}"])
    assert node._trainer.calls == node._charges.rounds_charged == 1


def read(name):
    return decode(FRAMES[name], *KINDS.values())


def test_the_coordinator_makes_the_good_requests_and_the_good_total(plan):
    names = list(GOOD["sites"])
    roster = SessionRoster.of(read(f"keys-{name}") for name in names)
    assert roster.digest == GOOD["roster_digest"] == read("roster").digest
    session, order = Session(plan, roster, {name: read(f"shares-{name}") for name in names}), read("order")
    game = CoordinatorRound(session, order, model_digest(order.weights, order.basis))
    for name in GOOD["round"]["survivors"]:
        assert game.is_for_this(read(f"reply-{name}"))
        game.add(read(f"reply-{name}"))
        game.agree(read(f"consent-{name}"))
    asked, good = game.survivor_set(), read("survivor-set")
    assert (asked.survivors, asked.signatures.tobytes()) == (good.survivors, good.signatures.tobytes())
    for name in GOOD["round"]["survivors"]:
        assert game.is_good(read(f"consent-{name}"))
        request, good = game.reveal_request(name), read(f"reveal-request-{name}")
        assert (request.dealers, request.signers) == (good.dealers, good.signers)
        assert request.sealed.tobytes() == good.sealed.tobytes()
        assert request.signatures.tobytes() == good.signatures.tobytes()
        game.open(read(f"reveal-{name}"))
    assert game.total().tolist() == GOOD["round"]["total"]


def test_what_stands_between_the_messages_is_what_the_code_derives(plan):
    about = GOOD["round"]
    order = read("order")
    model = model_digest(order.weights, order.basis)
    assert (model, list(order.cohort)) == (about["model_digest"], about["cohort"])
    assert round_context(GOOD["roster_digest"], order.cohort, 1, model) == about["context"]
    assert plan.parameters.neighbourhood.share_threshold == GOOD["parameters"]["share_threshold"]
    for name, site in GOOD["sites"].items():
        secret = SessionSecret(bytes.fromhex(site["session_secret"]), GOOD["session"])
        numbers = range(1, GOOD["rounds"] + 1)
        assert secret.channel_key().private_bytes_raw().hex() == site["channel_key"]
        assert [secret.mask_key_bytes(number).hex() for number in numbers] == site["mask_keys"]
        assert [secret.self_seed(number).hex() for number in numbers] == site["self_seeds"], name


@pytest.mark.parametrize(("kind", "secrets"), [("mask key", "mask_keys"), ("self seed", "self_seeds")])
def test_three_shares_give_the_secret_and_two_do_not(kind, secrets):
    dealt = GOOD["sites"]["west"]["dealt_in_round_1"]
    shares = {GOOD["sites"][holder]["point"]: bytes.fromhex(pair[kind]) for holder, pair in dealt.items()}
    assert shamir.recover(shares, 3).hex() == GOOD["sites"]["west"][secrets][0]
    try:
        assert shamir.recover(shares, 2).hex() != GOOD["sites"]["west"][secrets][0]
    except CloisterError as error:
        assert "do not belong to one" in error.message  # noqa: PT017 - a wrong secret may also be none at all


# --- one fault at a time ---------------------------------------------------------------------------------------------


def check(vector, node):
    """Only the refusal leaves, nothing else happens, and the refusal holds nothing but what was asked and a code."""
    asked(node, vector["after"])
    before, private = node._trainer.calls, private_bytes(node)
    with capture_logs() as logs:
        left = node.answer(bytes.fromhex(vector["request"]))
    # The bytes were written by hand from plan, round, site and code: no key and no number can be in them.
    assert left.hex() == vector["answer"]
    assert decode(left, Refusal).code == vector["code"]
    assert [log["code"] for log in logs] == [vector["code"]]
    assert private_bytes(node) == private
    assert node._trainer.calls == before
    assert node._charges.rounds_charged == vector["rounds_charged"]


def private_bytes(node):
    """What left so far, but for what is public."""
    return {kind: size for kind, size in node.released.bytes_by_class.items() if kind != "public"}


def error_behind(vector, node):
    """The error that the node turns into the refusal, or that its book raises when asked for the same."""
    request = bytes.fromhex(vector["request"])
    try:
        message = decode(request, *_MASKED_KINDS)
        node._serve(message, request)
        if isinstance(message, MaskedOrder):
            node._charges.charge(message.round_number, "of this request")
        node._charges.agree_to(message.round_number, message.survivors)
    except CloisterError as error:
        return type(error).__name__, error.exit_code, error.message
    return None


@pytest.mark.parametrize("name", sorted(BAD))
def test_a_fault_is_refused_and_nothing_else_leaves(make_node, name):
    check(BAD[name], make_node())


@pytest.mark.parametrize("name", sorted(BAD))
def test_the_error_behind_a_refusal_and_its_exit_code(make_node, name):
    vector, node = BAD[name], make_node()
    asked(node, vector["after"])
    error, exit_code, message = error_behind(vector, node)
    assert (error, exit_code) == (vector["error"], vector["exit_code"]), message
    assert node._charges.rounds_charged == vector["rounds_charged"]


@pytest.mark.parametrize("name", sorted(name for name, vector in BAD.items() if "order-2" not in vector["after"]))
def test_after_a_fault_the_good_round_goes_on(make_node, name):
    """A lie costs the coordinator its request and the site nothing: no state was changed by it."""
    vector, node = BAD[name], make_node()
    check(vector, node)
    whole = ["invite", "roster", "order", "survivor-set", "reveal-request-east"]
    asked(node, whole[len(vector["after"]) :])


# --- each check, taken out -------------------------------------------------------------------------------------------

PLANTED = {
    "keys are not checked against identities": (
        lambda patch: patch.setattr(common.secagg.roster, "is_signed_by", lambda *_: True),
        ["wrong-signature", "key-of-the-coordinator", "swapped-keys", "keys-of-another-session"],
    ),
    "keys may stand twice": (
        lambda patch: patch.setattr(common.secagg.roster, "_keys_and_commitments", lambda _: [object()]),
        ["repeated-key", "repeated-key-at-another-place"],
    ),
    "a survivor's reply may be for any context": (
        lambda patch: patch.setattr(SiteHalf, "_check_replies", lambda *_: None),
        [name for name, vector in BAD.items() if vector["code"] == "other-context"],
    ),
    "replies are not verified": (
        lambda patch: patch.setattr(client.secagg, "is_signed_by", lambda *_: True),
        [name for name in BAD if name.startswith(("reply-for", "reply-of", "survivor-that"))],
    ),
    "consents are not verified": (
        lambda patch: patch.setattr(client.secagg, "is_signed_by", lambda *_: True),
        [name for name, vector in BAD.items() if name.startswith(("consent-for", "forged", "consent-counted"))],
    ),
    "the threshold is what the coordinator says": (
        lambda patch: patch.setattr(SiteHalf, "_check_enough", lambda *_: None),
        ["cohort-of-one", "cohort-below-threshold", "survivors-of-one", "survivors-below-threshold"],
    ),
    "any number of survivor sets a round": (
        lambda patch: patch.setattr(Charges, "survivors_fault", lambda *_: None),
        ["survivor-set-that-differs", "reveal-for-a-set-not-signed", "double-reveal"],
    ),
    "shares are not authenticated": (
        lambda patch: patch.setattr(Channel, "open", lambda _, sealed, __: SharePair(sealed[:33], sealed[33:66])),
        [name for name in BAD if name.startswith(("tampered", "share-for", "share-from", "share-of", "share-under"))],
    ),
    "rounds may come again": (
        lambda patch: patch.setattr(Charges, "fault", lambda *_: None),
        ["replayed-round", "model-that-differs"],
    ),
}


@pytest.mark.parametrize(("fault", "name"), [(fault, name) for fault, (_, hit) in PLANTED.items() for name in hit])
def test_planted_fault_turns_the_vector_red(make_node, monkeypatch, fault, name):
    node = make_node()
    asked(node, BAD[name]["after"])
    PLANTED[fault][0](monkeypatch)
    with pytest.raises((AssertionError, CloisterError)):
        check({**BAD[name], "after": []}, node)
