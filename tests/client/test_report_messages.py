import json

from client.report_messages import message_lines, message_objects
from common.audit import AuditEntry
from common.audit_events import MessageRepeated
from tests.audit_events import DIGEST, EVENTS, MESSAGE_OUT, PLAN

OUTSIDE_ROUNDS = MESSAGE_OUT.model_copy(update={"message": "PlanAnswer", "round_number": 0})
AGAIN = MessageRepeated(digest=DIGEST, size_bytes=13, recipient="coordinator")


def entries(*events: object) -> list[AuditEntry]:
    return [AuditEntry(number, f"2026-11-21T15:04:{number:02}.000Z", event) for number, event in enumerate(events, 1)]


def test_a_message_is_a_line_with_all_that_the_log_says_of_it() -> None:
    (line,) = message_lines(entries(MESSAGE_OUT))
    assert line.split("\t") == [
        "2026-11-21T15:04:01.000Z",
        "masked",
        PLAN[:8],
        "1",
        "13",
        DIGEST,
        "coordinator",
        "masked numbers of a round",
    ]


def test_a_plan_has_its_name_a_repeat_has_a_line_and_the_oldest_comes_first() -> None:
    lines = [line.split("\t") for line in message_lines(entries(*EVENTS, OUTSIDE_ROUNDS))]
    assert [line[0] for line in lines] == sorted(line[0] for line in lines)
    assert [line[1] for line in lines] == ["masked", "sent again", "masked"]
    assert lines[0][2] == f"adverse-events ({PLAN[:8]})"
    assert lines[1][2:] == ["-", "-", "13", DIGEST, "coordinator", "-"]
    assert lines[2][3] == "-"
    assert {len(line) for line in lines} == {8}


def test_as_json_each_line_is_an_object_with_every_field() -> None:
    out, again = (json.loads(line) for line in message_objects(entries(MESSAGE_OUT, AGAIN)))
    assert out == {
        "number": 1,
        "time": "2026-11-21T15:04:01.000Z",
        "kind": "message-out",
        **MESSAGE_OUT.model_dump(mode="json"),
    }
    assert again["kind"] == "message-repeated"
    assert again["digest"] == DIGEST


def test_what_is_no_message_has_no_line() -> None:
    others = [event for event in EVENTS if type(event).__name__ not in {"MessageOut", "MessageRepeated"}]
    assert list(message_lines(entries(*others))) == list(message_objects(entries(*others))) == []
