"""The bench of the sweep's loop runs every cell once, and tells a loop that is slow from one that is not."""

import driver
import pytest

from training.processes import processes


@pytest.mark.slow
@pytest.mark.parametrize(("poll", "low", "high"), [(0.001, 0.6, 1.0), (0.5, 0.0, 0.3)])
def test_busy_is_what_the_loop_leaves_of_the_workers_time(monkeypatch, poll, low, high):
    monkeypatch.setattr(processes, "POLL", poll)
    found = driver.measure(2, 20, seconds=0.1)
    assert found["cells"] == 20
    assert low < found["busy"] < high, found


def test_the_ranges_of_seeds_are_no_longer_than_a_file_allows(monkeypatch):
    monkeypatch.setattr(driver, "MOST_RUNS", 3)
    assert driver.measure(8, 7, seconds=0.0)["cells"] == 7
