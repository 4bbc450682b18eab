import math
from dataclasses import replace
from io import BytesIO

import pytest
from matplotlib import rcParams
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from server.learning_curve import MARKED_ROUNDS_LIMIT, NAMED_SITES_LIMIT, learning_curve, metric_name
from server.state import Evaluation, RoundSummary


def rounds(*evaluations):
    return tuple(
        RoundSummary(number, 2, judged is not None, {}, {}, 1.0, {}, judged, 0.1, 1, 1)
        for number, judged in enumerate(evaluations, start=1)
    )


def judged(loss, **metrics):
    return Evaluation(loss, metrics)


@pytest.fixture
def panels(monkeypatch) -> list[Axes]:
    """The three panels of the last picture, kept when it is saved."""
    kept: list[Axes] = []
    save = Figure.savefig

    def keep(figure, *args, **kwargs):
        kept[:] = figure.axes
        save(figure, *args, **kwargs)

    monkeypatch.setattr(Figure, "savefig", keep)
    return kept


def curves(panel):
    """Label and values of every labelled line of a panel."""
    return {name: values for name, (_, values) in points(panel).items()}


def points(panel):
    """Label, rounds and values of every labelled line of a panel."""
    lines = [line for line in panel.lines if not line.get_label().startswith("_")]
    return {line.get_label(): (list(line.get_xdata()), list(line.get_ydata())) for line in lines}


RUN = rounds(judged(0.75, auc=0.5, test_loss=0.875, train_seconds=12.0), None, judged(0.5, auc=0.625, accuracy=1.0))
TWO_SITES = {"north": [1.0, 1.5, 2.0], "south": [1.0, 1.5, 1.5]}


def test_each_figure_is_drawn_on_its_panel(panels):
    learning_curve(RUN, 3, TWO_SITES)
    loss, merit, budget = panels
    assert points(loss) == {"validation loss": ([1, 3], [0.75, 0.5]), "test loss": ([1], [0.875])}
    assert points(merit) == {"AUC": ([1, 3], [0.5, 0.625]), "accuracy": ([3], [1.0])}  # seconds are no share: left out
    assert curves(budget) == TWO_SITES


def test_every_panel_says_what_it_shows(panels):
    learning_curve(RUN, 3, TWO_SITES)
    assert [panel.get_ylabel() for panel in panels] == ["loss (nats)", "figure of merit", "ε spent"]
    assert panels[-1].get_xlabel() == "round"
    assert panels[0].get_title() == "Learning curve (dotted: round 3, the result; grey: too few sites, nothing changed)"
    learning_curve(rounds(judged(0.5)), 1, {"a": [1.0]})
    assert panels[0].get_title() == "Learning curve (dotted: round 1, the result)"


def test_a_line_joins_judged_rounds_across_those_that_were_not_due(panels):
    unjudged = replace(RUN[1], applied=True)
    learning_curve((unjudged, RUN[0], unjudged, RUN[2]), 4, {"north": [1.0, 1.5, 2.0, 2.25]})
    assert points(panels[0])["validation loss"] == ([2, 4], [0.75, 0.5])
    assert [line.get_marker() for line in panels[0].lines if line.get_label() == "validation loss"] == ["o"]
    assert "grey" not in panels[0].get_title()
    assert all(not panel.patches for panel in panels)


@pytest.mark.parametrize(
    ("aborts", "said"),
    [
        (["", ""], "grey: too few sites, nothing changed"),
        (["", "too few inputs"], "grey: lost, nothing changed"),
    ],
)
def test_the_title_says_why_rounds_were_lost(panels, aborts, said):
    lost = tuple(replace(RUN[1], round_number=number, abort=abort) for number, abort in enumerate(aborts, start=2))
    learning_curve((RUN[0], *lost, RUN[2]), 1, {})
    assert said in panels[0].get_title()


def test_the_result_and_rounds_without_enough_sites_are_marked_on_every_panel(panels):
    learning_curve(RUN, 3, TWO_SITES)
    for panel in panels:
        dotted = [line for line in panel.lines if line.get_linestyle() == ":" and len(line.get_xdata()) == 2]
        assert [list(line.get_xdata()) for line in dotted] == [[3, 3]]
        assert [patch.get_bbox().intervalx.tolist() for patch in panel.patches] == [[1.5, 2.5]]


def test_lines_of_a_panel_differ_in_colour_and_in_style(panels):
    learning_curve(RUN, 3, {f"site {number}": [number, 2.0, 3.0] for number in range(NAMED_SITES_LIMIT)})
    lines = [line for line in panels[2].lines if not line.get_label().startswith("_")]
    assert len({line.get_color() for line in lines}) == NAMED_SITES_LIMIT
    assert len({(line.get_linestyle(), line.get_marker()) for line in lines}) == NAMED_SITES_LIMIT


@pytest.mark.parametrize(("count", "marker"), [(MARKED_ROUNDS_LIMIT, "o"), (MARKED_ROUNDS_LIMIT + 1, "None")])
def test_markers_are_left_out_where_they_would_touch(panels, count, marker):
    learning_curve(rounds(*[judged(0.5)] * count), 1, {"a": [1.0] * count})
    assert {line.get_marker() for line in panels[0].lines if line.get_label() == "validation loss"} == {marker}


def test_sites_that_spent_alike_share_one_line(panels):
    learning_curve(RUN, 3, {"north": [1.0, 2.0, 3.0], "south": [1.0, 2.0, 3.0]})
    assert curves(panels[2]) == {"each of 2 sites": [1.0, 2.0, 3.0]}
    learning_curve(RUN, 3, {"north": [1.0, 2.0, 3.0]})
    assert curves(panels[2]) == {"north": [1.0, 2.0, 3.0]}


def test_many_sites_are_a_band(panels):
    learning_curve(RUN, 3, {str(number): [1.0, 2.0, 3.0 + number] for number in range(NAMED_SITES_LIMIT + 1)})
    assert curves(panels[2]) == {}
    band = panels[2].collections[0].get_paths()[0].vertices
    assert {tuple(corner) for corner in band.tolist()} >= {(1, 1), (2, 2), (3, 3), (3, 9)}
    assert [text.get_text() for text in panels[2].get_legend().get_texts()] == ["lowest to highest of 7 sites"]


@pytest.mark.parametrize(
    ("epsilon", "sentence"),
    [({"a": [math.inf]}, "no noise, no guarantee: ε is infinite"), ({}, "no ε was recorded")],
)
def test_what_is_missing_is_said(panels, epsilon, sentence):
    learning_curve((RoundSummary(1, 2, True, {}, {}, 1.0, {}, None, 0.1, 1, 1),), 1, epsilon)
    texts = [[text.get_text() for text in panel.texts] for panel in panels]
    assert texts == [["no public set was judged"], ["no public set was judged"], [sentence]]


def test_it_is_a_picture_and_the_same_one_each_time():
    settings = dict(rcParams)
    picture = learning_curve(RUN, 3, TWO_SITES)
    assert Image.open(BytesIO(picture)).size == (960, 1020)
    assert learning_curve(RUN, 3, TWO_SITES) == picture
    assert dict(rcParams) == settings


def test_metric_names_are_written_as_people_write_them():
    assert [metric_name(name) for name in ("auc", "test_auc", "f1", "validation_loss")] == [
        "AUC",
        "test AUC",
        "F1",
        "validation loss",
    ]
