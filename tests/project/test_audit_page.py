"""docs/audit-log.md lists every kind of event, and its recipe checks a log without our code."""

import base64
import hashlib
import json
import re
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from common.audit import EVENT_KINDS, AuditLog
from common.audit_events import Paused, Resumed
from common.identity import new_identity, public_name
from tests.site_commands import Play

ROW = re.compile(r"^\| `([a-z-]+)` \| (both|site|coordinator) \| .+ \|$", re.MULTILINE)


@pytest.fixture(scope="module")
def page(root: Path) -> str:
    return (root / "docs" / "audit-log.md").read_text(encoding="utf-8")


def test_the_page_lists_every_kind(page: str) -> None:
    assert sorted(kind for kind, _ in ROW.findall(page)) == sorted(EVENT_KINDS)


def canonical(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode("ascii")


def test_the_recipe_of_the_page_checks_a_log(tmp_path: Path) -> None:
    """Written from the page alone."""
    identity = new_identity()
    log = AuditLog(tmp_path / "audit.jsonl", tmp_path / "audit.anchor", identity)
    log.record(Paused(by="Dr. Keller"))
    log.record(Resumed(by="Dr. Keller"))
    key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(public_name(identity)))
    previous = "0" * 64
    for text in (tmp_path / "audit.jsonl").read_bytes().splitlines():
        line = json.loads(text)
        assert canonical(line) == text
        assert line["previous"] == previous
        content = {name: line[name] for name in ("number", "time", "previous", "kind", "fields")}
        previous = hashlib.sha256(canonical(content)).hexdigest()
        assert line["hash"] == previous
        key.verify(bytes.fromhex(line["signature"]), canonical(["cloister signature", 1, "audit log", previous]))
    anchor = json.loads((tmp_path / "audit.anchor").read_bytes())
    assert (anchor["number"], anchor["hash"]) == (2, previous)
    signed = canonical(["cloister signature", 1, "audit log anchor", [2, previous]])
    key.verify(bytes.fromhex(anchor["signature"]), signed)


def opened(text: str) -> dict[str, str]:
    """A document between BEGIN and END lines, as the page says."""
    values: dict[str, str] = json.loads(base64.b64decode("".join(text.strip().splitlines()[1:-1])))
    return values


def test_the_public_keys_are_where_the_page_says(tmp_path: Path) -> None:
    play = Play(tmp_path).join()
    (log,) = [one for one in json.loads(play("verify", "--json").out) if one["subject"] == "audit log"]
    assert opened(play("request").out)["identity"] == log["public_key"]
    last = json.loads(play.site.audit.read_bytes().splitlines()[-1])
    key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(log["public_key"]))
    key.verify(bytes.fromhex(last["signature"]), canonical(["cloister signature", 1, "audit log", last["hash"]]))
    signed, plan = play.sign()
    coordinator = public_name(play.identity)
    assert opened((tmp_path / "invitation").read_text())["coordinator"] == coordinator == signed.coordinator
    assert json.loads(plan.read_bytes())["coordinator"] == coordinator
