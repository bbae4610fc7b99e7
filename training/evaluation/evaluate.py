"""Error by number of in-context examples, of a model and of reference predictors."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from training.checkpoints.checkpoint import Checkpoint, load
from training.common.bootstrap import mean_interval
from training.common.digits import require_whole
from training.common.errors import UserError, one_of
from training.common.library_defaults import library_defaults
from training.common.progress import progress_bar
from training.config.config import RunConfig, stream_seed
from training.evaluation.own_run import OwnRun
from training.model.transformer import Transformer
from training.options import DEFAULT_PROMPTS, as_list
from training.pools import draws_from, no_context, pool_baselines, sources_of
from training.sampling import Sampled, sample_functions, sample_prompts, shifted_queries
from training.tasks.baselines import Predictor, baseline
from training.tasks.function_classes import choose_classes, function_class
from training.tasks.function_classes.own import DATA
from training.tasks.prompts import Prompts
from training.tasks.shifts import shift as shift_called

Units = Literal["nmse", "paper"]

CHUNK = 256  # prompts per forward pass: enough to keep the cores busy, small enough for any preset
DEFAULT_BASELINES = ("least_squares", "ridge")


def evaluation_prompts(
    config: RunConfig,
    name: str,
    *,
    n_prompts: int,
    seed: int,
    stream: str = "test",
    inputs: str | None = None,
    shift: str = "none",
) -> Prompts:
    """Prompts as in training, from a separate random stream.

    Args:
        config: the run whose inputs, weights, lengths and instructions to follow.
        name: function class.
        n_prompts: how many.
        seed: determines them together with `stream`.
        stream: `selection`, `reference` and `test` share nothing; linear, quadratic, cubic and quartic share w and x,
            so that they can be compared pair by pair.
        inputs: input distribution; None is the run's first.
        shift: a change of the whole prompt (`training.tasks.shifts`).
    """
    if isinstance(config, OwnRun):
        if name != DATA or inputs not in (None, DATA) or shift != "none":
            raise UserError("prompts of your own have the class, inputs and shifts that they have: name none")
        evaluation_generator(stream, seed)  # refuses what is no seed
        return config.stream(stream, n_prompts, seed)
    return sample_prompts(config, name, evaluation_generator(stream, seed), n_prompts, inputs=inputs, shift=shift)


def evaluation_functions(config: RunConfig, name: str, *, n_prompts: int, seed: int, stream: str = "test") -> Sampled:
    """The prompts of `evaluation_prompts`, with the functions behind them."""
    return sample_functions(config, name, evaluation_generator(stream, seed), n_prompts)


def evaluation_generator(stream: str, seed: int) -> torch.Generator:
    """The random generator of a stream of prompts.

    Raises:
        UserError: the seed is no whole number. 0, 0.0, None and tensor(0) would name different streams.
    """
    require_whole("seed", seed, at_least=0)
    return torch.Generator().manual_seed(stream_seed("evaluation", stream, seed))


@torch.no_grad()
def predictions(model: Transformer, prompts: Prompts) -> Float[Tensor, "batch point"]:
    """The model's prediction of every y, on the CPU."""
    chunks = [model.predict(tokens.to(model.device)).cpu() for tokens in prompts.tokens.split(CHUNK)]
    return torch.cat(chunks)


def no_context_error(config: RunConfig, name: str, prompts: Prompts) -> Float[Tensor, "batch point"]:
    """Squared error of E[y given x], the no-context optimum, on these prompts of the run."""
    return (no_context(config, name, prompts) - prompts.ys).square()


@dataclass(frozen=True)
class Setting:
    """The prompts of an error curve, beyond the function class.

    Attributes:
        inputs: input distribution; None is the run's first.
        shift: a change of the data (`training.tasks.shifts`).
        functions: `pool` or `fresh` (`training.pools.draws_from`); None is what the run trains on.
        n_prompts: how many.
        seed: of the prompts and the resampling.
    """

    inputs: str | None = None
    shift: str = "none"
    functions: str | None = None
    n_prompts: int = DEFAULT_PROMPTS
    seed: int = 0


@library_defaults()
def error_curves(
    checkpoint: Checkpoint | str | Path,
    classes: str | Sequence[str] | None = None,
    *,
    n_prompts: int = DEFAULT_PROMPTS,
    seed: int = 0,
    units: Units | str = "nmse",
    inputs: str | Sequence[str] | None = None,
    shift: str = "none",
    functions: str | None = None,
    baselines: str | Sequence[str] = DEFAULT_BASELINES,
    class_baseline: bool = True,
) -> pd.DataFrame:
    """One row per function class, input distribution, source of functions, predictor and number of in-context examples.

    Columns: `checkpoint`, `step`, `function_class`, `inputs`, `shift`, `functions`, `predictor` (see `predictors`),
    `examples` (k pairs before the prediction), `error` with its 95 % interval `ci_low`, `ci_high` over prompts, and
    `units`: `nmse` = MSE / E[y²] of the class without shift or pool, or `paper` = MSE / n_dims, in which only linear
    has the zero predictor at 1.

    Args:
        checkpoint: a loaded run, or its name.
        classes: function classes; None takes those of the run.
        n_prompts: per class.
        seed: of the prompts.
        units: of the errors.
        inputs: input distributions; None takes the run's.
        shift: a change of the data (`training.tasks.shifts`).
        functions: from the run's `pool` or `fresh` ones; None takes both where the run has a pool.
        baselines: predictors beside the model (`training.tasks.baselines.BASELINES`).
        class_baseline: whether to add the baselines of the class and of the pool; those of quadratic and cubic take
            about a minute.

    Raises:
        UserError: unknown class, input distribution, shift or baseline, a shift that the class does not have, or
            functions of the pool of a run without pool.
    """
    if not isinstance(checkpoint, Checkpoint):
        checkpoint = load(checkpoint)
    if units not in get_args(Units):
        raise one_of("units", units, get_args(Units))
    baselines = as_list(baselines)
    drawn_from = (functions,) if functions else sources_of(checkpoint.config)
    sources = checkpoint.config.data.inputs if inputs is None else as_list(inputs)
    names = choose_classes(classes, checkpoint.config.evaluated_classes)
    arms = [(name, source, origin) for name in names for source in sources for origin in drawn_from]
    tables = []
    for name, source, origin in progress_bar(arms, desc="evaluate", unit="class"):
        setting = Setting(source, shift, origin, n_prompts, seed)
        unit = checkpoint.config.second_moment(name, source) if units == "nmse" else checkpoint.config.model.n_dims
        rng = np.random.default_rng(stream_seed("bootstrap", seed, name))
        for predictor, errors in squared_errors(checkpoint, name, setting, baselines, class_baseline).items():
            scaled = torch.stack(list(errors.values()), dim=1).double().numpy() / unit
            low, high = mean_interval(scaled, rng)
            curve = {"examples": list(errors), "error": scaled.mean(0), "ci_low": low, "ci_high": high}
            about = {"function_class": name, "inputs": source, "shift": shift, "functions": origin}
            about["predictor"] = predictor
            tables.append(pd.DataFrame(about | curve))
    table = pd.concat(tables, ignore_index=True).assign(units=units)
    table.insert(0, "checkpoint", checkpoint.name)
    table.insert(1, "step", checkpoint.step)
    return table


def squared_errors(
    checkpoint: Checkpoint,
    name: str,
    setting: Setting,
    baselines: Sequence[str] = DEFAULT_BASELINES,
    class_baseline: bool = True,
) -> dict[str, dict[int, Float[Tensor, " batch"]]]:
    """By predictor and number of examples, the squared error on every prompt; all predictors see the same prompts."""
    config = draws_from(checkpoint.config, setting.functions) if setting.functions else checkpoint.config
    chosen = predictors(checkpoint, name, baselines, class_baseline)
    chosen["no_context"] = partial(no_context, config, name)
    if not shift_called(setting.shift).query_only:
        prompts = evaluation_prompts(
            config, name, n_prompts=setting.n_prompts, seed=setting.seed, inputs=setting.inputs, shift=setting.shift
        )
        return {
            key: dict(enumerate((predict(prompts) - prompts.ys).square().unbind(1))) for key, predict in chosen.items()
        }
    generator = evaluation_generator("test", setting.seed)
    queries = shifted_queries(config, name, generator, setting.n_prompts, shift=setting.shift, inputs=setting.inputs)
    return {
        key: {k: (predict(prompts) - prompts.ys).square()[:, -1] for k, prompts in queries.items()}
        for key, predict in chosen.items()
    }


def predictors(
    checkpoint: Checkpoint, name: str, baselines: Sequence[str], class_baseline: bool = True
) -> dict[str, Predictor]:
    """The model, the baselines of class and pool if wanted, other baselines, and two predictors that use no examples.

    Those of a pool are `dmmse`, the posterior mean over it, and the baseline that knows the class and its noise
    (`training.pools.pool_baselines`). `no_context` is E[y given x], the optimum without examples; `zero` predicts 0.
    """
    config = checkpoint.config
    informed = [function_class(name).baseline(config.data.weights), *pool_baselines(config, name)]
    return {
        "model": partial(predictions, checkpoint.model),
        **({learner.name: learner.predict for learner in informed} if class_baseline else {}),
        **{key: baseline(key) for key in baselines},
        "no_context": partial(no_context, config, name),
        "zero": lambda prompts: torch.zeros_like(prompts.ys),
    }
