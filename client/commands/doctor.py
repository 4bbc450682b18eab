"""`cloister-site doctor`."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Annotated

import typer

from client.commands.options import HomeOption, JsonOption, existing_home
from common.command_line import findings_table, stderr, stdout, tally


def doctor(
    home: HomeOption = None,
    offline: Annotated[bool, typer.Option("--offline", help="Leave out what needs the coordinator.")] = False,
    deep: Annotated[
        bool, typer.Option("--deep", help="Hash every base model and test gradients on real ones; takes minutes.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Look at everything that can be wrong here: pass, warn or fail, each with the mend. Changes nothing.

    Exit codes: 0 nothing failed, else that of the worst kind: 3 settings or machine, 4 network, 13 damage, 14 rollback.

    Examples: `cloister-site doctor` · `cloister-site doctor --offline --json`
    """
    from client.doctor.doctor import site_checks
    from common.checkup import raise_worst, run_checks

    checks = site_checks(existing_home(home), datetime.now(UTC), offline=offline, deep=deep)
    with stderr().status("looking") as shown:
        found = run_checks(checks, lambda subject: shown.update(f"looking at: {subject}"))
    if as_json:
        print(json.dumps([one.as_json() for one in found], indent=2, ensure_ascii=False))
    else:
        findings = [one.finding for one in found]
        stdout().print(findings_table(findings))
        stdout().print(tally(findings))
    raise_worst(found)
