import io

from rich.console import Console

from server.progress import PhaseProgress, RoundProgress, SiteProgress
from server.run_view import watch
from tests.plans import make_plan

PLAN = make_plan(rounds=4, roster={"north": "0" * 64, "south": "1" * 64})
EVENTS = (
    PhaseProgress("gathering"),
    SiteProgress("north", "fetching", fraction=0.30),
    SiteProgress("north", "fetching", fraction=0.40),
    SiteProgress("north", "fetching", fraction=0.55),
    SiteProgress("south", "refused", ("too-little-noise",)),
    PhaseProgress("training"),
    RoundProgress(1, 2, 0.5, 1.0, {"validation loss": 0.7}),
    RoundProgress(
        2, 2, 0.8, 1.0, {"validation loss": 0.6}, {"malformed": 1}, "nothing changed: too few sites", ("north",)
    ),
)


def shown(terminal):
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=terminal, width=100, color_system=None)
    with watch(console, PLAN) as view:
        for event in EVENTS:
            view.show(event)
    return stream.getvalue()


def test_in_a_pipe_each_event_is_a_line_and_a_base_is_told_in_quarters():
    lines = shown(terminal=False).splitlines()
    assert lines[1:4] == [
        "north: fetches the base model, 30% of it are there",
        "north: fetches the base model, 55% of it are there",
        "south: refuses: the noise is below this site's floor",
    ]
    assert lines[-1].startswith("round 2/4  sites 2/2  ε 0.80")
    assert "no answer: north" in lines[-1]
    assert len(lines) == 7


def test_on_a_terminal_the_last_picture_has_sites_figures_curve_and_time_left():
    picture = shown(terminal=True).rpartition("site ")[2]
    assert "refuses: the noise is below this site's floor" in picture
    assert "█▁  ε 0.80   validation loss 0.6000" in picture
    assert "nothing changed: too few sites" in picture
    assert "2/4" in picture
    assert "no answer in the last round" in picture
    assert "left" in picture


def test_how_a_run_failed_leaves_by_the_outer_door_and_not_twice():
    stream = io.StringIO()
    with watch(Console(file=stream), PLAN) as view:
        view.show(PhaseProgress("failed", "too few"))
    assert stream.getvalue() == ""
