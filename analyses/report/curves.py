"""Lines and points: error by number of examples, scores by training step, effect against score."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from analyses.report.emergence import BEST_OTHER
from interp.ablation.size_classes import ATTENDS, HALF
from interp.display.svg import (
    GREY,
    INK,
    INTACT,
    MODES,
    NULL,
    Scale,
    dot,
    drawing,
    element,
    key,
    line,
    polyline,
    stroke_mark,
    text,
    ticks,
)
from training.common.output import number

WIDTH, HEIGHT = 332, 220
LEFT, RIGHT, TOP, BOTTOM = 46, 16, 26, 40

OTHERS = "#8a949e"

Points = Sequence[tuple[float, float]]


def frame(title: str, x: Scale, y: Scale, x_label: str, y_label: str, x_ticks: Mapping[float, str]) -> list[str]:
    """Title, axes with their names, and a faint line at every tick of y."""
    marks = [text(LEFT, 13, title, size=12, fill=INK)]
    for tick in ticks(y.low, y.high):
        marks += [
            line(x.start, y(tick), x.stop, y(tick)),
            text(LEFT - 7, y(tick) + 3.5, number(tick, 1), size=10, anchor="end"),
        ]
    marks += [text(x(tick), y.start + 15, shown, size=10, anchor="middle") for tick, shown in x_ticks.items()]
    marks.append(text((x.start + x.stop) / 2, y.start + 32, x_label, size=10.5, anchor="middle"))
    middle = (y.start + y.stop) / 2
    return [
        *marks,
        element(
            "g", text(0, 0, y_label, size=10.5, anchor="middle"), transform=f"translate(12 {middle:.0f}) rotate(-90)"
        ),
    ]


def error_figure(curves: Mapping[str, Points], title: str) -> str:
    """Error by number of in-context examples: `intact`, `no_context`, and without the found heads by mode."""
    high = 1.08 * max(value for points in curves.values() for _, value in points)
    last = max(examples for points in curves.values() for examples, _ in points)
    x, y = Scale(0, max(1, last), LEFT, WIDTH - RIGHT), Scale(0, high, HEIGHT - BOTTOM, TOP)
    x_ticks = {tick: f"{tick:.0f}" for tick in ticks(0, max(1, last), 4)}
    marks = frame(title, x, y, "in-context examples", "MSE / E[y²]", x_ticks)
    for name, points in curves.items():
        style = {"stroke": MODES.get(name, INTACT), "width": 1.6, "dash": None}
        style |= {"intact": {"width": 2.4}, "no_context": {"stroke": GREY, "dash": "2 3"}}.get(name, {})
        marks.append(polyline([(x(examples), y(value)) for examples, value in points], **style))
        marks += points_of(name.replace("_", " "), points, x, y, style["stroke"])
    return drawing(WIDTH, HEIGHT, *marks, label=f"{title}: error by number of examples, {', '.join(curves)}")


def points_of(name: str, points: Points, x: Scale, y: Scale, fill: str) -> list[str]:
    """Small dots that say their value when pointed at."""
    return [dot(x(at), y(value), 1.8, f"{name} at {at:.0f}: {number(value)}", fill=fill) for at, value in points]


def emergence_figure(scores: Mapping[str, Points], error: Points, title: str) -> str:
    """Scores of the found heads and of the best other head by training step, with the error relative to no context."""
    steps = [step for step, _ in error]
    x = Scale(0, math.log10(1 + max(steps)), LEFT, WIDTH - RIGHT)
    y = Scale(0, 1.25, HEIGHT - BOTTOM, TOP)
    x_ticks = {math.log10(1 + step): f"{step}" for step in (0, 10, 100, 1000, 10_000, 100_000) if step <= max(steps)}
    marks = frame(title, x, y, "training step (log)", "score; error", x_ticks)
    marks.append(line(x.start, y(ATTENDS), x.stop, y(ATTENDS), stroke=GREY, dash="1 3"))
    curves: list[tuple[str, Points, str, str | None, float]] = [
        ("error / no context", error, MODES["zero"], "4 3", 1.4)
    ]
    for head, points in scores.items():
        found = head != BEST_OTHER
        curves.append((head, points, INTACT if found else OTHERS, None, 2.2 if found else 1.4))
    for name, points, stroke, dash, width in curves:
        placed = [(math.log10(1 + step), value) for step, value in points]
        marks.append(polyline([(x(step), y(value)) for step, value in placed], stroke=stroke, width=width, dash=dash))
        marks += [
            dot(x(place), y(value), 1.8, f"{name} at step {step:.0f}: {number(value)}", fill=stroke)
            for (place, value), (step, _) in zip(placed, points, strict=True)
        ]
    return drawing(WIDTH, HEIGHT, *marks, label=f"{title}: {', '.join(name for name, *_ in curves)} by training step")


def dose_figure(rows: Sequence[Mapping[str, Any]], title: str, ends: tuple[float, float]) -> str:
    """Every head of every model: what it costs against how it attends; found heads in blue, with intervals."""
    x, y = Scale(-0.02, 1.0, LEFT, WIDTH - RIGHT), Scale(*ends, HEIGHT + 30 - BOTTOM, TOP)
    x_ticks = {tick: number(tick, 1) for tick in ticks(0, 1, 4)}
    marks = frame(title, x, y, "retrospective score", "share of the gain lost", x_ticks)
    marks.append(line(x(ATTENDS), y.start, x(ATTENDS), y.stop, stroke=GREY, dash="1 3"))
    marks.append(line(x.start, y(HALF), x.stop, y(HALF), stroke=GREY, dash="1 3"))
    for row in sorted(rows, key=lambda row: row["found"]):
        said = f"{row['checkpoint']} {row['head']}: score {number(row['score'], 2)}, effect {number(row['effect'], 2)}"
        at = x(row["score"])
        if row["found"]:
            marks.append(line(at, y(row["ci_low"]), at, y(row["ci_high"]), stroke=INTACT, width=1.6))
        fill, stroke = (INTACT, "#ffffff") if row["found"] else (NULL, "#7d8791")
        marks.append(
            dot(at, y(row["effect"]), 4 if row["found"] else 2.8, said, fill=fill, stroke=stroke, stroke_width=0.7)
        )
    return drawing(
        WIDTH, HEIGHT + 30, *marks, label=f"{title}: effect of removing each of {len(rows)} heads against its score"
    )


def key_to_errors() -> str:
    """What the lines of the error curves stand for."""
    lines = {"intact": stroke_mark(INTACT, 2.4), "no-context optimum": stroke_mark(GREY, 1.6, "2 3")}
    return key(lines | {f"without: {mode}": stroke_mark(colour) for mode, colour in MODES.items()})


def key_to_emergence() -> str:
    """What the lines of the training curves stand for."""
    return key(
        {
            "score of a found head": stroke_mark(INTACT, 2.2),
            "highest score of the others": stroke_mark(OTHERS, 1.4),
            "error, of the no-context optimum's": stroke_mark(MODES["zero"], 1.4, "4 3"),
        }
    )
