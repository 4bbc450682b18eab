from server.attendance import Attendance


class Sites:
    """Those that answer, one of them twice."""

    def __init__(self, *names):
        self.names = names

    def exchange(self, orders):
        for name in self.names:
            if name in orders:
                yield name, b"answer"
                yield name, b"once more"


def asked(attendance, *names):
    return [site for site, _ in attendance.exchange(dict.fromkeys(names, b"order"))]


def test_who_was_asked_and_said_nothing_is_silent_until_somebody_looks():
    attendance = Attendance(Sites("a", "c"))
    assert asked(attendance, "c", "b", "a", "d") == ["a", "a", "c", "c"]
    assert asked(attendance, "a", "c") == ["a", "a", "c", "c"]
    assert attendance.take_silent() == ("b", "d")
    assert attendance.take_silent() == ()


def test_who_was_not_asked_is_not_silent():
    attendance = Attendance(Sites("a"))
    asked(attendance, "a")
    assert attendance.take_silent() == ()
