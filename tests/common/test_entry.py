import signal
from collections.abc import Iterator

import pytest

from common.entry import INTERRUPTED, interrupts_leave


@pytest.fixture(autouse=True)
def handler() -> Iterator[object]:
    kept = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield kept
    signal.signal(signal.SIGINT, kept)


def test_inside_an_interrupt_ends_the_process_and_outside_it_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    codes: list[int] = []
    monkeypatch.setattr("os._exit", codes.append)
    with interrupts_leave():
        signal.raise_signal(signal.SIGINT)
    assert codes == [INTERRUPTED] == [130]
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


def test_an_import_that_fails_leaves_interrupts_as_they_were() -> None:
    with pytest.raises(ImportError), interrupts_leave():
        raise ImportError
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_an_interrupt_that_is_ignored_stays_ignored() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with interrupts_leave():
        signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
