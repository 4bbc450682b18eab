"""The report of a finished run: a picture, a model card, and last of all `results.json`, which marks it as finished."""

from __future__ import annotations

import json
from pathlib import Path

from common.files import write_durably
from server.learning_curve import learning_curve
from server.model_card import model_card
from server.results import RunReport, results, spent
from server.run_files import CARD_NAME, CURVE_NAME, RESULTS_NAME


def write_report(report: RunReport, folder: Path) -> None:
    """Write picture, model card and results into the run folder.

    Guarantees:
        `results.json` is removed first and written last, each in one durable step: where it is, the rest is there too
        and of the same run.

    Args:
        report: The run.
        folder: Run folder; must exist.
    """
    (folder / RESULTS_NAME).unlink(missing_ok=True)
    curves = {site.site: spent(report, site) for site in report.privacy}
    write_durably(folder / CURVE_NAME, learning_curve(report.outcome.rounds, report.outcome.chosen_round, curves))
    write_durably(folder / CARD_NAME, model_card(report).encode("utf-8"))
    text = json.dumps(results(report), indent=2, ensure_ascii=False, allow_nan=False)
    write_durably(folder / RESULTS_NAME, f"{text}\n".encode())


def is_finished(folder: Path) -> bool:
    """Whether the folder holds a run that came to its end."""
    return (folder / RESULTS_NAME).is_file()
