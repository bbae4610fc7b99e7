"""The studies by name: where each is and its question."""

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import TYPE_CHECKING, NamedTuple

from training.common.errors import UserError, one_of

if TYPE_CHECKING:
    from analyses.findings import Findings


class Study(NamedTuple):
    """A study: its module, its question, and an example of its options."""

    module: str
    question: str
    example: str


STUDIES: Mapping[str, Study] = {
    "curricula": Study(
        "curricula",
        "Which curricula learn which function classes, and which forget?",
        "--ckpt 'zoo:*-*' --out results",
    ),
    "inputs": Study(
        "inputs",
        "Does a curriculum over input distributions work as one over function classes does?",
        "--ckpt 'runs/inputs/*/*' --out results",
    ),
    "plateaus": Study(
        "plateaus.study",
        "How many seeds leave the plateau, and is it the no-context optimum?",
        "--ckpt 'zoo:*-*' --out results",
    ),
    "efficiency": Study(
        "efficiency.study", "Does a mixed curriculum need a ninth of the data?", "--ckpt 'zoo:*-*' --out results"
    ),
    "consistency": Study(
        "consistency.study",
        "Are the same heads retrospective on every class, and in every model?",
        "--ckpt 'zoo:*-*' --out results",
    ),
    "cause": Study(
        "cause.study",
        "Do retrospective heads cause in-context learning, in every model that has them?",
        "--ckpt 'zoo:mixed-*' --ckpt 'zoo:random-*' --out cause",
    ),
    "which_score": Study(
        "which_score.study",
        "Which score of a head tells what removing it costs: attention, function vector, gradient or direct effect?",
        "--ckpt zoo:mixed-0 --ckpt zoo:mixed-1 --out results",
    ),
    "layers": Study(
        "layers.study",
        "Does the first layer need many heads, and each later layer one?",
        "--ckpt zoo:mixed-0 --ckpt zoo:mixed-1 --out results",
    ),
    "trace": Study(
        "trace.study", "What do retrospective heads carry, and who reads it?", "--ckpt 'zoo:mixed-*' --out trace"
    ),
    "variants": Study(
        "variants.study",
        "What changes with size, prompt length, function class or instruction, and what stays?",
        "--ckpt 'zoo:mixed-*' --ckpt 'runs/sizes/*/*' --out results",
    ),
    "architectures": Study(
        "architectures.study",
        "Which architectures learn in context, which grow retrospective heads, and what does removing these cost?",
        "--ckpt 'runs/architectures/*/*' --out results",
    ),
    "diversity": Study(
        "diversity.study",
        "From which pool size on do models learn the class rather than remember functions, and by which heads?",
        "--ckpt 'runs/diversity/*/*' --out results",
    ),
    "transplant": Study(
        "transplant.study",
        "Do the retrospective heads of a trained model, put into a new one, shorten its plateau?",
        "--ckpt 'runs/transplant/*/*' --out results",
    ),
    "clamping": Study(
        "clamping.study",
        "What does forcing or forbidding attention from y to its x during training change?",
        "--ckpt 'runs/clamping/*/*' --out results",
    ),
    "success": Study(
        "success.study",
        "What sets models that learned in context apart from those that stayed on the plateau?",
        "--ckpt 'zoo:*-*' --out success",
    ),
    "published": Study(
        "published",
        "Do the scores of these models look like the published heat maps?",
        "--ckpt zoo:mixed-0 --ckpt zoo:linear-0 --out results",
    ),
    "emergence": Study(
        "emergence.study",
        "When do retrospective heads appear, and does the head come before the loss falls?",
        "--ckpt zoo:mixed-0 --ckpt zoo:random-0 --out emergence",
    ),
}


def study_function(name: str) -> "Callable[..., Findings]":
    """The function `study(checkpoints, n_prompts=…, seed=…)` of a study."""
    return import_module(f"analyses.studies.{STUDIES[name].module}").study


def check_studies(names: str) -> tuple[str, ...] | None:
    """The studies that `--studies` names; None stands for those that the models were made for.

    Raises:
        UserError: there is no such study, or one is named twice.

    >>> check_studies("auto"), check_studies("none"), check_studies("layers,curricula")
    (None, (), ('layers', 'curricula'))
    """
    if names in ("auto", "none"):
        return None if names == "auto" else ()
    chosen = tuple(name.strip() for name in names.split(","))
    for name in chosen:
        if name not in STUDIES:
            raise one_of("--studies", name, [*STUDIES, "auto", "none"])
        if chosen.count(name) > 1:
            raise UserError(f"--studies {names}: {name} is named twice")
    return chosen
