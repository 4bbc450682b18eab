from datetime import UTC, datetime, timedelta, timezone

import pytest
from pydantic import TypeAdapter, ValidationError

from common.moments import Moment, current_moment, moment_text

MOMENT = TypeAdapter(Moment)


def test_a_moment_has_one_spelling():
    text = "2026-11-05T09:30:00Z"
    assert moment_text(MOMENT.validate_json(f'"{text}"')) == text
    assert MOMENT.dump_json(MOMENT.validate_json(f'"{text}"')) == f'"{text}"'.encode()


def test_other_zones_and_parts_of_a_second_are_put_into_it():
    moment = datetime(2026, 11, 5, 10, 30, 0, 999, tzinfo=timezone(timedelta(hours=1)))
    assert moment_text(moment) == "2026-11-05T09:30:00Z"


@pytest.mark.parametrize("text", ["2026-11-05T09:30:00", "2026-11-05T09:30:00.5Z", "2026-11-05T10:30:00+01:00", "now"])
def test_what_is_not_in_utc_and_of_whole_seconds_is_refused(text):
    with pytest.raises(ValidationError):
        MOMENT.validate_json(f'"{text}"')


def test_the_clock_is_one():
    before = datetime.now(UTC)
    assert MOMENT.validate_python(current_moment()) == current_moment()
    assert abs(current_moment() - before) <= timedelta(seconds=2)
