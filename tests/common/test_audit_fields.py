import re
from pathlib import Path
from typing import get_args

import pytest
from pydantic import TypeAdapter, ValidationError

from common import audit_fields
from common.audit_fields import ReleaseClass, most_revealing

HEX = "ab" * 32
GOOD = {
    "Digest": [HEX],
    "PublicKey": [HEX],
    "Name": ["north", "St.Anna_2"],
    "Label": ["below-floor", "a"],
    "Labels": [(), ("a", "b")],
    "Person": ["Dr. Müller-O'Neil", "root", "anna@ward_3"],
    "Version": ["0.1.0", "1.0.0rc1"],
    "Command": ["approve", "data check"],
    "MessageKind": ["MaskedReply"],
    "Address": ["127.0.0.1", "2001:db8::1", "2001:db8::/64", "others"],
    "FleetPath": ["/v1/fleet/pull-messages", "other"],
    "Time": ["2026-11-21T15:04:05Z", "2026-11-21T15:04:05.678Z"],
    "Count": [0, 2**53 - 1],
    "RoundNumber": [1],
    "ExitCode": [0, 255],
    "Part": ["site"],
    "Kept": ["ledger"],
}
BAD = {
    "Digest": ["", "AB" * 32, HEX + "\n", HEX + "0", "patient 7"],
    "PublicKey": ["", HEX[:-1]],
    "Name": ["", "a b", "n\n", "<b>", "x" * 65],
    "Label": ["", "Below", "a_b", "a" * 41, "two words"],
    "Labels": [("a",) * 65, ("A",), "ab"],
    "Person": ["", "  ", "x" * 65, "a\nb", "<script>", "a;b", "\u202egnp", "a\u200bb", "a|b", 7],
    "Version": ["", "v1", "1 0"],
    "Command": ["", "Approve", "approve /tmp/x", "a" * 41],
    "MessageKind": ["", "masked", "A B", "Reply3"],
    "Address": ["", "example.org", "<b>", "1.2.3.4/x"],
    "FleetPath": ["", "/v1/control/start-run", "/v1/fleet/", "/v1/fleet/../control", "/v1/fleet/A", "others"],
    "Time": ["", "2026-11-21", "٢٠٢٦-11-21T15:04:05Z", "2026-11-21T15:04:05+01:00"],
    "Count": [-1, 2**53, 1.0, True, "1"],
    "RoundNumber": [0],
    "ExitCode": [-1, 256],
    "Part": ["", "hospital"],
    "Kept": ["", "records"],
}


def accepts(name, value):
    try:
        TypeAdapter(getattr(audit_fields, name)).validate_python(value, strict=True)
    except ValidationError:
        return False
    return True


@pytest.mark.parametrize("name", GOOD)
def test_each_type_takes_what_it_is_for_and_nothing_else(name):
    assert [value for value in GOOD[name] if not accepts(name, value)] == []
    assert [value for value in BAD[name] if accepts(name, value)] == []


def test_every_type_has_its_good_and_bad_examples():
    source = Path(audit_fields.__file__).read_text(encoding="utf-8")
    named = set(re.findall(r"^([A-Z]\w+) = (?:Annotated|Literal)", source, flags=re.MULTILINE))
    assert named - {"ReleaseClass"} == set(GOOD) == set(BAD)


@pytest.mark.parametrize(
    ("sizes", "most"),
    [
        ({}, "public"),
        ({"public": 9}, "public"),
        ({"public": 9, "key material": 1}, "key material"),
        ({"key material": 9, "masked": 1, "public": 5}, "masked"),
        ({"masked": 9, "noised and charged": 1}, "noised and charged"),
        ({"masked": 0, "public": 1}, "public"),
    ],
)
def test_the_most_revealing_class_with_bytes_in_it_counts(sizes, most):
    assert most_revealing(sizes) == most


def test_every_class_has_its_place_in_the_order():
    assert sorted(audit_fields._MOST_REVEALING_FIRST) == sorted(get_args(ReleaseClass))
