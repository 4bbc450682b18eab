import io
from types import SimpleNamespace

import pytest
from rich.console import Console

import simulations.view
from simulations.view import LineView, LiveView, RoundFigures, SilentView, watch

FIGURES = {"test loss": 0.69314, "validation loss": 0.5}
SITES = ("hospital-1", "hospital-2")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A clock that stands still unless a test moves it."""
    now = SimpleNamespace(seconds=100.0)
    monkeypatch.setattr(simulations.view.time, "monotonic", lambda: now.seconds)
    return now


class Screen:
    """What a `LiveView` shows, as plain text of the last picture."""

    def __init__(self) -> None:
        self.pictures: list[str] = []

    def update(self, picture: object, *, refresh: bool) -> None:
        assert refresh
        console = Console(file=io.StringIO(), width=100, force_terminal=False)
        console.print(picture)
        self.pictures.append(console.file.getvalue())

    def row(self, start: str) -> list[str]:
        (line,) = [line for line in self.pictures[-1].splitlines() if line.startswith(start)]
        return line.split()


# --- lines ---------------------------------------------------------------------------------------------------------


def test_one_line_a_round() -> None:
    console = Console(file=io.StringIO(), width=20)
    view = LineView(console, 12)
    view.site_started("hospital-1")
    view.site_finished("hospital-1")
    view.round_finished(RoundFigures(3, 2, 1.2345, FIGURES))
    assert console.file.getvalue() == "round 3/12  answered 2  ε 1.23  test loss 0.6931  validation loss 0.5000\n"


def test_of_a_run_that_is_judged_now_and_then_only_those_rounds_are_lines() -> None:
    console = Console(file=io.StringIO())
    view = LineView(console, 4)
    for number, figures in enumerate(({}, FIGURES, {}, FIGURES), start=1):
        view.round_finished(RoundFigures(number, 2, 1.0, figures))
    assert [line.split()[1] for line in console.file.getvalue().splitlines()] == ["2/4", "4/4"]


def test_a_lost_round_is_a_line_that_says_why() -> None:
    console = Console(file=io.StringIO())
    LineView(console, 2).round_finished(RoundFigures(1, 0, float("inf"), {}, "nothing changed: too few [sites]"))
    assert console.file.getvalue() == "round 1/2  answered 0  ε inf  nothing changed: too few [sites]\n"


# --- live ----------------------------------------------------------------------------------------------------------


def test_the_table_follows_each_hospital(clock: SimpleNamespace) -> None:
    screen = Screen()
    view = LiveView(screen, SITES, rounds=4, done=0)
    assert "no figures yet" in screen.pictures[-1]
    assert screen.row("hospital-1")[1:] == ["waiting", "0", "0.0", "0.00"]
    view.site_started("hospital-1")
    assert screen.row("hospital-1")[1] == "training"
    assert screen.row("hospital-2")[1] == "waiting"
    clock.seconds += 2.5
    view.site_finished("hospital-1")
    assert screen.row("hospital-1")[1:] == ["answered", "1", "2.5", "0.00"]
    view.site_started("hospital-2")
    clock.seconds += 1.5
    view.site_finished("hospital-2")
    view.round_finished(RoundFigures(1, 2, 0.7, FIGURES))
    assert screen.row("hospital-1")[1:] == ["waiting", "1", "2.5", "0.70"]
    assert screen.row("hospital-2")[1:] == ["waiting", "1", "1.5", "0.70"]
    assert "test loss 0.6931   validation loss 0.5000" in screen.pictures[-1]
    assert "1/4" in screen.row("rounds")


def test_the_time_left_is_the_mean_part_times_the_parts_left(clock: SimpleNamespace) -> None:
    screen = Screen()
    view = LiveView(screen, SITES, rounds=3, done=0)
    for site in SITES:
        view.site_started(site)
        clock.seconds += 20
        view.site_finished(site)
        if site == "hospital-1":
            assert "about 1:40 left" in screen.pictures[-1]  # 5 parts of 20 s
    view.round_finished(RoundFigures(1, 2, 0.7, FIGURES))
    assert "about 1:20 left" in screen.pictures[-1]  # 4 parts of 20 s


def test_hospitals_that_do_not_answer_do_not_confuse_the_time_left(clock: SimpleNamespace) -> None:
    screen = Screen()
    view = LiveView(screen, SITES, rounds=2, done=0)
    for number in (1, 2):
        view.site_started("hospital-1")
        clock.seconds += 10
        view.site_finished("hospital-1")
        view.round_finished(RoundFigures(number, 1, 0.7, FIGURES))
        if number == 1:
            assert "about 0:20 left" in screen.pictures[-1]
    assert "about 0:00 left" in screen.pictures[-1]


def test_a_resumed_run_begins_where_it_stood(clock: SimpleNamespace) -> None:
    screen = Screen()
    view = LiveView(screen, SITES, rounds=4, done=3)
    assert "3/4" in screen.row("rounds")
    view.site_started("hospital-1")
    clock.seconds += 10
    view.site_finished("hospital-1")
    assert "about 0:10 left" in screen.pictures[-1]


def test_the_curve_grows_by_the_first_figure() -> None:
    screen = Screen()
    view = LiveView(screen, SITES, rounds=3, done=0)
    for number, loss in enumerate((0.7, 0.5, 0.6), start=1):
        view.round_finished(RoundFigures(number, 2, 0.1, {"test loss": loss, "validation loss": 9.0}))
    assert "█▁▅  test loss 0.6000" in screen.pictures[-1]


def test_between_judged_rounds_the_last_figures_and_the_curve_stay() -> None:
    screen = Screen()
    view = LiveView(screen, SITES, rounds=4, done=0)
    for number, figures in enumerate(({}, {"test loss": 0.7}, {}, {"test loss": 0.5}), start=1):
        view.round_finished(RoundFigures(number, 2, 0.1 * number, figures))
    assert ["▁  test loss 0.7000" in picture for picture in screen.pictures] == [False, False, True, True, False]
    assert "no figures yet" in screen.pictures[1]
    assert "█▁  test loss 0.5000" in screen.pictures[-1]
    assert screen.row("hospital-1")[-1] == "0.40"
    assert "4/4" in screen.row("rounds")


def test_a_remark_is_shown_until_the_next_round() -> None:
    screen = Screen()
    view = LiveView(screen, SITES, rounds=3, done=0)
    view.round_finished(RoundFigures(1, 1, 0.1, {"test loss": 0.7}, "nothing changed: too few sites"))
    view.round_finished(RoundFigures(2, 2, 0.1, {"test loss": 0.5}))
    assert ["too few sites" in picture for picture in screen.pictures] == [False, True, False]


# --- which of them -------------------------------------------------------------------------------------------------


def test_a_terminal_gets_the_live_view() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=100)
    with watch(console, SITES, 2) as view:
        assert isinstance(view, LiveView)
        view.site_started("hospital-2")
        view.site_finished("hospital-2")
        view.round_finished(RoundFigures(2, 2, 0.5, FIGURES))
    shown = console.file.getvalue()
    for word in ("hospital-2", "training", "answered", "ε spent", "2/2", "\x1b["):
        assert word in shown


def test_a_pipe_gets_lines_without_escape_codes() -> None:
    console = Console(file=io.StringIO(), width=100)
    with watch(console, SITES, 2) as view:
        assert isinstance(view, LineView)
        view.round_finished(RoundFigures(1, 2, 0.5, FIGURES))
    assert console.file.getvalue().startswith("round 1/2 ")
    assert "\x1b" not in console.file.getvalue()


def test_the_silent_view_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    view = SilentView()
    view.site_started("hospital-1")
    view.site_finished("hospital-1")
    view.round_finished(RoundFigures(1, 2, 0.5, FIGURES))
    assert capsys.readouterr() == ("", "")
