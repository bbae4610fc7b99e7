"""Whatever a process has done before a call changes no result, and no call changes the process."""

import dataclasses
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import cache
from pathlib import Path
from threading import Event, Thread
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import interp
from interp.model.heads import Head
from interp.patching.path_receivers import parse_receivers
from training.checkpoints import checkpoint
from training.common.library_defaults import library_defaults
from training.config.parse import from_preset
from training.evaluation import convergence, evaluate
from training.loop.trainer import train
from training.model.transformer import Transformer

HEAD = (Head(0, 1),)
SMALL = ["model.n_layers=2", "model.n_heads=2", "model.d_model=16", "model.init_std=0.3", "recipe.steps=6"]
SMALL += ["record.eval_every=3", "record.eval_prompts=16", "record.save_every=2", "recipe.batch_size=8"]


def zoo() -> checkpoint.Checkpoint:
    return checkpoint.load("zoo:linear-0")


def small(directory: Path) -> checkpoint.Checkpoint:
    """A model of two layers with two heads, for what takes long."""
    config = from_preset("tiny", "single:linear", 0, SMALL)
    return checkpoint.Checkpoint("small", directory, config, 0, Transformer(config.model).requires_grad_(False))


def trained(directory: Path) -> tuple[object, ...]:
    train(from_preset("tiny", "mixed", 0, SMALL), directory / "run", progress=False)
    model = checkpoint.load(directory / "run").model
    return dict(model.named_parameters()), convergence.convergence(directory / "run").drop(columns="seconds")


def prompts(directory: Path) -> object:
    return evaluate.evaluation_prompts(small(directory).config, "cubic", n_prompts=8, seed=0, inputs="skewed")


def pooled(_: Path) -> object:
    models = [zoo(), checkpoint.load("zoo:linear-1")]
    ablations = [interp.ablate(model, [HEAD], n_prompts=16, n_controls=2, modes=["mean"]) for model in models]
    return interp.pooled(models, ablations, [HEAD, HEAD], "0.1")


def exported(path: Path) -> object:
    return len(interp.export_checkpoint(zoo(), path / "exported", force=True))


def imported(path: Path) -> object:
    interp.export_checkpoint(zoo(), path / "exported", force=True)
    return dict(interp.import_checkpoint(path / "exported", path / "run", force=True).model.named_parameters())


CALLS: dict[str, Callable[[Path], object]] = {
    "Transformer": lambda _: dict(Transformer(zoo().config.model).named_parameters()),
    "ablate": lambda _: interp.ablate(zoo(), [HEAD], n_controls=3, n_prompts=16),
    "ablate optimal": lambda path: interp.ablate(small(path), [HEAD], modes=["optimal"], n_controls=1, n_prompts=16),
    "attribute": lambda _: interp.attribute(zoo(), n_prompts=16),
    "attribute_edges": lambda path: interp.attribute_edges(small(path), n_prompts=16),
    "check_class": lambda _: interp.check_class("linear", n_prompts=256),
    "circuits": lambda path: interp.circuits(small(path), n_random=2, sizes=(4, 8), n_prompts=16),
    "composition": lambda _: interp.composition(zoo(), "0.1", n_rotations=9),
    "cumulative": lambda _: interp.cumulative(
        zoo(), [Head(0, 1), Head(1, 2)], modes=["mean"], n_orders=2, n_prompts=16
    ),
    "decode_heads": lambda path: interp.decode_heads(small(path), n_prompts=16, n_fit=64),
    "error_curves": lambda _: evaluate.error_curves(zoo(), ["linear"], n_prompts=16, seed=0),
    "evaluation_prompts": prompts,
    "export_checkpoint": exported,
    "head_weights": lambda _: interp.head_weights(zoo(), "0.1", n_rotations=9),
    "hooked": lambda _: dict(interp.hooked("zoo:linear-0").named_parameters()),
    "import_checkpoint": imported,
    "lens": lambda _: interp.lens(zoo(), n_prompts=16),
    "load": lambda _: dict(zoo().model.named_parameters()),
    "pairs": lambda _: interp.pairs(zoo(), (Head(0, 1), Head(1, 2)), modes=["mean"], n_prompts=16),
    "parse_heads": lambda _: interp.parse_heads("each", 2, 2),
    "patch": lambda _: interp.patch(zoo(), n_prompts=16),
    "path_effects": lambda _: interp.path_effects(zoo(), [HEAD], parse_receivers("out", 3, 8), n_prompts=16),
    "patterns": lambda _: interp.patterns(zoo()),
    "pooled": pooled,
    "probe": lambda path: interp.probe(small(path), n_prompts=16, n_fit=64),
    "prompt_pairs": lambda path: interp.prompt_pairs(small(path).config, "linear", "function", n_prompts=8, seed=0),
    "score": lambda _: interp.score(zoo(), n_prompts=16),
    "swap": lambda path: interp.swap(small(path), n_prompts=16, n_fit=64, n_controls=2, n_compared=8),
    "train": trained,
}


@contextmanager
def set_for_a_while(get: Callable[[], Any], put: Callable[[Any], Any], value: object) -> Iterator[None]:
    before = get()
    put(value)
    try:
        yield
        assert get() == value, "the call changed the process"
    finally:
        put(before)


@contextmanager
def warnings_as_errors() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


@contextmanager
def other_seed() -> Iterator[None]:
    torch.manual_seed(5)
    drawn = torch.get_rng_state()
    yield
    assert torch.equal(torch.get_rng_state(), drawn), "the call drew from the process's generator"


LONG = ("ablate optimal", "attribute_edges", "circuits", "pooled", "swap")


STATES: dict[str, Callable[[], AbstractContextManager[object]]] = {
    "float64 by default": lambda: set_for_a_while(torch.get_default_dtype, torch.set_default_dtype, torch.float64),
    "float16 by default": lambda: set_for_a_while(torch.get_default_dtype, torch.set_default_dtype, torch.float16),
    "no gradients": torch.no_grad,
    "inference mode": torch.inference_mode,
    "deterministic algorithms": lambda: set_for_a_while(
        torch.are_deterministic_algorithms_enabled, torch.use_deterministic_algorithms, True
    ),
    "two threads": lambda: set_for_a_while(torch.get_num_threads, torch.set_num_threads, 2),
    "warnings as errors": warnings_as_errors,
    "another device by default": lambda: torch.device("meta"),
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "coarse products": lambda: set_for_a_while(
        torch.get_float32_matmul_precision, torch.set_float32_matmul_precision, "medium"
    ),
    "NumPy raises": lambda: np.errstate(all="raise"),
    "another seed": other_seed,
}


def numbers(result: object) -> list[tuple[str, np.ndarray]]:
    """Every number in a result, with its type, in the order of the result's fields."""
    if isinstance(result, torch.Tensor):
        return [(str(result.dtype), result.detach().cpu().double().numpy())]
    if isinstance(result, np.ndarray) and result.dtype != object:
        return [(str(result.dtype), result.astype(float))]
    if isinstance(result, pd.DataFrame):
        numeric = result.select_dtypes(["number", "bool"])
        return [(str(list(numeric.columns)), numeric.to_numpy(float))]
    if dataclasses.is_dataclass(result):
        return numbers([getattr(result, field.name) for field in dataclasses.fields(result)])
    if isinstance(result, dict):
        return numbers(list(result.values()))
    if isinstance(result, list | tuple):
        return [pair for part in result for pair in numbers(part)]
    return [("number", np.array(float(result)))] if isinstance(result, int | float) else []


@cache
def expected(call: str, directory: Path) -> list[tuple[str, np.ndarray]]:
    return numbers(CALLS[call](directory))


def check_same_numbers(call: str, state: AbstractContextManager[object], factory: pytest.TempPathFactory) -> None:
    usual = expected(call, factory.getbasetemp())
    with state:
        result = CALLS[call](factory.mktemp("state"))
    for (kind, values), (usual_kind, usual_values) in zip(numbers(result), usual, strict=True):
        assert kind == usual_kind
        np.testing.assert_allclose(values, usual_values, rtol=1e-4, atol=1e-5, err_msg=kind)


def test_blocks_of_two_threads_have_the_defaults_until_both_have_ended():
    """The default dtype belongs to the process: the first block to end does not take it from the other one."""
    begun, ended, dtypes = Event(), Event(), list[torch.dtype]()

    def compute() -> None:
        with library_defaults():
            begun.set()
            assert ended.wait(60)
            dtypes.append(torch.get_default_dtype())

    with set_for_a_while(torch.get_default_dtype, torch.set_default_dtype, torch.float64):
        thread = Thread(target=compute)
        with library_defaults():
            thread.start()
            assert begun.wait(60)
        ended.set()
        thread.join()
    assert dtypes == [torch.float32]


def test_every_public_function_is_tried():
    of_the_users_module = {"attach", "judge"}  # which computes in the state that its owner has chosen
    classes = {"Checkpoint", "Head", "OwnPrompts", "UserError"}
    of_no_model = classes | {"read_prompts", "to_prompt"}  # files, a change of shape
    assert set(interp.__all__) - of_no_model - of_the_users_module <= set(CALLS)


@pytest.mark.sample(2)
@pytest.mark.parametrize("call", [pytest.param(call, marks=[pytest.mark.slow] * (call in LONG)) for call in CALLS])
def test_no_state_of_the_process_changes_a_result(call, tmp_path_factory):
    with ExitStack() as all_states:
        for name in set(STATES) - {"two threads"}:  # which a busy machine takes long for
            all_states.enter_context(STATES[name]())
        check_same_numbers(call, all_states.pop_all(), tmp_path_factory)


@pytest.mark.slow
@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("call", CALLS)
def test_each_state_alone_changes_no_result(call, state, tmp_path_factory):
    check_same_numbers(call, STATES[state](), tmp_path_factory)
