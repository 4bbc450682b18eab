"""`cloister-coordinator doctor`."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

import typer

from common.checkup import raise_worst, run_checks
from common.command_line import findings_table, stderr, stdout, tally
from common.errors import ConfigError
from server.commands.options import HomeOption, JsonOption, home_at, print_json
from server.doctor.doctor import coordinator_checks


def doctor(
    home: HomeOption = None,
    deep: Annotated[bool, typer.Option("--deep", help="Hash the base model, however large it is.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Look at everything that can be wrong here: pass, warn or fail, each with the mend. Changes nothing.

    Exit codes: 0 nothing failed, else that of the worst kind: 3 settings or machine, 4 network, 13 damage, 14 rollback.

    Examples: `cloister-coordinator doctor` · `cloister-coordinator doctor --json`
    """
    place = home_at(home)
    if not place.path.is_dir():
        hint = "make one with `cloister-coordinator init`, or name its folder by --home"
        raise ConfigError(f"there is no coordinator at {place.path}", hint=hint)
    with stderr().status("looking") as shown:
        found = run_checks(
            coordinator_checks(place, datetime.now(UTC), deep=deep),
            lambda subject: shown.update(f"looking at: {subject}"),
        )
    if as_json:
        print_json([one.as_json() for one in found])
    else:
        findings = [one.finding for one in found]
        stdout().print(findings_table(findings))
        stdout().print(tally(findings))
    raise_worst(found)
