"""The guided tour in notebooks/concepts/extending.md is the way that a command really takes."""

import re
import sys
from pathlib import Path
from types import FrameType

import pytest
import torch

ROOT = Path(__file__).parents[1]
PASSED_THROUGH = {"interp/display/result.py", "interp/model/parallel.py"}  # hand a call on to what they are given


def tour() -> list[str]:
    page = (ROOT / "notebooks" / "concepts" / "extending.md").read_text()
    section = page.partition("## A tour: one command through the code")[2].partition("\n## ")[0]
    return re.findall(r"^\d+\. `([\w/]+\.py)`:", section, re.MULTILINE)


def file_of(frame: FrameType) -> str | None:
    path = Path(frame.f_code.co_filename)
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT / "interp") else None


@pytest.mark.slow
def test_every_file_of_the_tour_is_entered_from_one_above_it(outcome):
    files = tour()
    calls: set[tuple[str, str]] = set()

    def record(frame: FrameType, event: str, _: object) -> None:
        callee = file_of(frame) if event == "call" else None
        if callee not in files:
            return
        caller = frame.f_back
        while caller is not None:
            name = file_of(caller)
            if name is not None and name not in PASSED_THROUGH and name != callee:
                calls.add((name, str(callee)))
                return
            caller = caller.f_back

    torch.set_num_threads(1)  # parts of the work run in this thread, where they can be watched
    sys.setprofile(record)
    try:
        outcome("ablate", "--ckpt", "zoo:mixed-0", "--heads", "0.1", "--classes", "linear", "--prompts", "16")
    finally:
        sys.setprofile(None)
    assert 5 < len(files) <= 12
    for number, file in enumerate(files[1:], 1):
        assert {caller for caller, callee in calls if callee == file} & {*files[:number]}, file
