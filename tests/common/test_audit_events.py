from typing import get_args

import pytest
from pydantic import ValidationError

from common.audit_events import AuditEvent, GatewayAccess, Reserved
from tests.audit_events import EVENTS, MESSAGE_OUT

HOSTILE = ["\n", "Jane Roe, HIV positive, MRN 00123", "<script>alert(1)</script>", "x" * 4000, "\u202e"]


def test_there_is_an_example_of_every_event():
    assert {type(event) for event in EVENTS} == set(get_args(AuditEvent))


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: type(event).__name__)
def test_an_event_comes_back_from_json_and_takes_no_other_field(event):
    kind, values = type(event), event.model_dump(mode="json")
    assert kind.model_validate(values) == event
    with pytest.raises(ValidationError):
        kind.model_validate({**values, "note": "free text"})
    with pytest.raises(ValidationError):
        event.plan = "changed"


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: type(event).__name__)
@pytest.mark.parametrize("text", HOSTILE)
def test_no_field_takes_free_text(event, text):
    values = event.model_dump(mode="json")
    for name, value in values.items():
        spoiled = [text] if isinstance(value, list) else {text: 1} if isinstance(value, dict) else text
        with pytest.raises(ValidationError):
            type(event).model_validate({**values, name: spoiled})


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"size_bytes": 12}, "do not add up"),
        ({"bytes_by_class": {"masked": 10}}, "do not add up"),
        ({"release_class": "public"}, "not the most revealing"),
        ({"release_class": "noised and charged"}, "not the most revealing"),
        ({"bytes_by_class": {"raw": 13}}, "bytes_by_class"),
        ({"release_class": "raw"}, "release_class"),
    ],
)
def test_a_message_out_says_of_each_byte_what_it_is(change, rule):
    with pytest.raises(ValidationError, match=rule):
        type(MESSAGE_OUT).model_validate({**MESSAGE_OUT.model_dump(), **change})


@pytest.mark.parametrize("cost", [-1.0, float("nan"), float("inf")])
def test_a_cost_is_a_number(cost):
    with pytest.raises(ValidationError):
        Reserved(plan="ab" * 32, dataset="notes", unit="patient", rounds=1, cost=cost)


@pytest.mark.parametrize("remote", ["192.0.2.7", "2001:db8::/64", "others", "unknown"])
@pytest.mark.parametrize("status", [0, 200, 403])
def test_every_line_of_the_gateway_can_be_recorded(remote, status):
    """Its ways to name an address, and 0 for a connection without an answer: an error here would end its serving."""
    assert GatewayAccess(remote=remote, path="other", status=status).requests == 1
