"""Reading a ledger: whether it is whole, this site's, this machine's, and as new as its anchor says."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from client.ledger.anchor import Anchor, read_anchor
from client.ledger.file import LedgerFile
from client.ledger.rows import HINT, NOTHING_BEFORE, Opened, Row, check_chain, unfit
from client.ledger.state import LedgerState, fold
from common.errors import RollbackError
from common.privacy.plan import PrivacyPlan

_ROUNDING = 1 + 1e-9  # Another version of a mathematical library may differ in the last digits.


@dataclass(frozen=True)
class LedgerView:
    """A ledger that was found sound: every entry, and what they add up to."""

    rows: tuple[Row, ...]
    state: LedgerState


def read_ledger(path: Path, anchor_path: Path, public: str, host: str) -> LedgerView:
    """Look at a ledger without the right to write it, also while the node runs: for `budget`, `verify`, `report`.

    Checks all that opening checks, and every cost; writes nothing.

    Args:
        path: The ledger.
        anchor_path: Its anchor.
        public: The site's identity, 64 hexadecimal digits.
        host: This machine, by `host_identifier`.

    Raises:
        IntegrityError: When a file is missing, damaged, edited, of another site or another machine.
        RollbackError: When entries are missing at the end, or an older ledger or anchor was put back.
        TryAgainError: When a file cannot be read now.
    """
    with closing(LedgerFile(path)) as file:
        anchor = read_anchor(anchor_path, public)
        rows = file.rows()
        # The node may have written entries meanwhile; then its anchor has come further, too.
        newest = read_anchor(anchor_path, public)
    check_rows(rows, anchor, public, host, newest=newest)
    state = fold(rows)
    check_costs(state)
    return LedgerView(rows, state)


def check_costs(state: LedgerState) -> None:
    """Compute every reservation's cost again, from the mechanism that its entry names.

    Raises:
        IntegrityError: When a plan was charged less than it costs.
    """
    for reservation in state.reservations.values():
        account = state.account(reservation.dataset, reservation.unit)
        mechanism = PrivacyPlan(**reservation.mechanism)  # type: ignore[arg-type] # checked by the plan itself
        if account.filter.cost(mechanism) > reservation.cost * _ROUNDING:
            raise unfit(f"charged plan {reservation.plan_name} less than it costs, in entry {reservation.sequence}")


def check_rows(
    rows: Sequence[Row], anchor: Anchor | None, public: str, host: str, *, newest: Anchor | None = None
) -> None:
    """Refuse entries that do not fit together; the last may be one that the anchor does not know yet.

    Args:
        rows: All entries, read after the anchor.
        anchor: How far they must go at least.
        public: The site's identity.
        host: This machine.
        newest: The anchor once more, read after the entries, where somebody else may be writing.

    Raises:
        IntegrityError: When something is missing, edited, of another site or another machine.
        RollbackError: When entries are missing at the end, or the anchor is older than a crash can leave it.
    """
    if anchor is None:
        raise unfit("has lost its anchor: nothing shows that this is not an older copy")
    check_chain(rows, public)
    _check_not_older(rows, anchor)
    _check_not_ahead(rows, newest or anchor)
    _check_owner(rows, anchor, public, host)


def _check_not_older(rows: Sequence[Row], anchor: Anchor) -> None:
    if len(rows) < anchor.sequence:
        rule = f"ends at entry {len(rows)}, but entry {anchor.sequence} was written: an older copy was put back"
        raise RollbackError(f"the ledger {rule}", hint=HINT)
    known = rows[anchor.sequence - 1].hash if anchor.sequence else NOTHING_BEFORE
    if known != anchor.head:
        raise RollbackError(f"the ledger has another entry {anchor.sequence} than was written: it is a copy", hint=HINT)


def _check_not_ahead(rows: Sequence[Row], anchor: Anchor) -> None:
    if len(rows) > anchor.sequence + 1:
        rule = f"stands at entry {anchor.sequence} of {len(rows)}, which no crash explains: an older one was put back"
        raise RollbackError(f"the anchor of the ledger {rule}", hint=HINT)


def _check_owner(rows: Sequence[Row], anchor: Anchor, public: str, host: str) -> None:
    first = rows[0].meaning if rows else None
    if not isinstance(first, Opened):
        raise unfit("has no first entry: it was never begun in full")
    if first.site != public:
        raise unfit("belongs to another site")
    if host not in {anchor.host} & {first.host}:
        raise unfit("belongs to another machine: a copy must not be spent from, while the first may still be in use")
