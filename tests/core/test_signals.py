from __future__ import annotations

import signal
import threading

import pytest

from study.core.signals import CAUGHT, Signals


@pytest.mark.parametrize("number", CAUGHT)
def test_the_first_signal_asks_for_an_end_and_the_second_is_one(number: signal.Signals) -> None:
    said = threading.Event()
    asked: list[str] = []
    before = [signal.getsignal(each) for each in CAUGHT]

    def end() -> str:
        asked.append("end")
        return "finishing"

    def say(line: str) -> None:
        assert line == "finishing"
        assert threading.current_thread() is not threading.main_thread(), "a print may be under way"
        said.set()

    with Signals(end, say):
        signal.raise_signal(number)
        assert said.wait(60)
        assert asked == ["end"]
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(number)
    assert asked == ["end"]
    assert [signal.getsignal(each) for each in CAUGHT] == before


def test_in_another_thread_signals_are_left_alone() -> None:
    before = [signal.getsignal(each) for each in CAUGHT]
    seen: list[object] = []

    def work() -> None:
        with Signals(lambda: "", lambda line: None):
            seen.extend(signal.getsignal(each) for each in CAUGHT)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == before
