"""A run's configuration: frozen dataclasses, one per concern, read from TOML presets and saved as JSON.

A preset file has one table per dataclass below (`training.config.parse` reads it).
"""

import hashlib
from dataclasses import dataclass, field
from typing import Literal

from jaxtyping import Float
from torch import Tensor

from training.common.devices import faster_precision
from training.common.errors import UserError
from training.config.checks import require_at_most, require_names, require_not_negative, require_positive
from training.config.clamping import ClampingConfig
from training.config.curriculum import Curriculum, Schedule, parse_curriculum
from training.config.model_config import ModelConfig
from training.config.transplant import InitConfig
from training.tasks.function_classes import WeightKind, function_class
from training.tasks.inputs import input_distribution
from training.tasks.prompts import Layout
from training.tasks.second_moments import Scale, no_context_moment, second_moment

MOST_FUNCTIONS = 2**20
"""The largest pool of Raventós et al. 2023; all of its values at a prompt are in memory at once."""
FORMER_NAME = "former name"
"""In the metadata of a field that was renamed: its name in files and settings of earlier versions."""


@dataclass(frozen=True)
class DataConfig:
    """Function classes and inputs of the prompts.

    Attributes:
        classes: the function classes, in the order in which a curriculum introduces them.
        inputs: the input distributions, in the order in which their curriculum introduces them.
        rotation: seed of the rotation of skewed inputs: the same number is the same distribution.
        n_points: (x, y) pairs per prompt.
        weights: `standard` draws w ~ N(0, I) as the paper does, `unit` divides it by its norm, so that E[y²] = 1.
        n_functions: functions in the pool of every class, from which prompts draw theirs (`training.pools`); 0 draws a
            fresh function for every prompt.
        pool_seed: seed of the pool: the same number is the same pool.
    """

    classes: tuple[str, ...] = ("linear", "quadratic", "cubic")
    inputs: tuple[str, ...] = ("gaussian",)
    rotation: int = 0
    n_points: int = 100
    weights: WeightKind = "standard"
    n_functions: int = 0
    pool_seed: int = 0

    def __post_init__(self) -> None:
        require_positive(self, "n_points")
        require_not_negative(self, "rotation", "n_functions", "pool_seed")
        require_at_most(self, MOST_FUNCTIONS, "n_functions")
        require_names("data.classes", self.classes)
        require_names("data.inputs", self.inputs)


@dataclass(frozen=True)
class ScheduleConfig:
    """How steps choose among function classes and input distributions, beyond the curriculum's name.

    Attributes:
        inputs: the curriculum over `data.inputs`.
        inputs_within: the curriculum over inputs runs once over the whole `run`, or once within every `block` of
            function classes.
        edges: last step of every block of function classes but the last (1000,2000 with three classes); empty divides
            the run equally.
        probabilities: for the curriculum `custom`: by block, the chance of every class ([[1,0],[0.5,0.5]]).
        batch: a step's prompts are all of `one` class and input distribution, or each draws its own (`mixed`).
    """

    inputs: Literal["mixed", "sequential", "random"] = "random"
    inputs_within: Literal["run", "block"] = "run"
    edges: tuple[int, ...] = ()
    probabilities: tuple[tuple[float, ...], ...] = ()
    batch: Literal["one", "mixed"] = "one"


@dataclass(frozen=True)
class GrowthConfig:
    """Prompts that start short and narrow (Garg et al. 2022); a start of 0 has them full from the first step.

    Attributes:
        points: pairs at the start.
        points_by: pairs that are added every `points_every` steps.
        points_every: steps between two additions of pairs.
        dims: coordinates that are not 0 at the start.
        dims_by: coordinates that are added every `dims_every` steps.
        dims_every: steps between two additions of coordinates.
    """

    points: int = 0
    points_by: int = 1
    points_every: int = 1000
    dims: int = 0
    dims_by: int = 1
    dims_every: int = 1000

    def __post_init__(self) -> None:
        require_not_negative(self, "points", "dims")
        require_positive(self, "points_by", "points_every", "dims_by", "dims_every")

    def points_at(self, step: int, n_points: int) -> int:
        """
        >>> GrowthConfig(points=5, points_by=2, points_every=10).points_at(25, 16)
        9
        """
        return grown(self.points, self.points_by, self.points_every, step, n_points)

    def dims_at(self, step: int, n_dims: int) -> int:
        return grown(self.dims, self.dims_by, self.dims_every, step, n_dims)


def grown(start: int, by: int, every: int, step: int, full: int) -> int:
    return min(full, start + by * (step // every)) if start else full


@dataclass(frozen=True)
class InstructionConfig:
    """Tokens that tell the model what the prompt is about (`models.py` of the authors' code at 1c896e3).

    Attributes:
        kind: `one_hot` tokens in input space, or a fixed random `vector` of the embedding space.
        tokens: how many instruction tokens.
        at: the token of the plain prompt in front of which they stand.
        encodes: the `class`, the distribution of the `inputs`, or `nothing` (always the same token).
    """

    kind: Literal["none", "one_hot", "vector"] = "none"
    tokens: int = 1
    at: int = 0
    encodes: Literal["class", "inputs", "nothing"] = field(default="class", metadata={FORMER_NAME: "tells"})

    def __post_init__(self) -> None:
        require_positive(self, "tokens")
        require_not_negative(self, "at")


@dataclass(frozen=True)
class RecipeConfig:
    """Optimiser, loss and arithmetic of training.

    Attributes:
        steps: optimiser steps.
        batch_size: prompts per step.
        optimizer: `adam`, `adamw`, or `muon` for the matrices of the blocks with AdamW for all other weights.
        schedule: `constant`, or `linear` or `cosine` from lr down to 0; all after `warmup_steps` of linear rise.
        warmup_steps: steps in which the rate rises from 0 to lr.
        weight_decay: as in AdamW; `adam` adds it to the gradient.
        grad_clip: largest gradient norm; 0 does not clip.
        lr: learning rate of Adam, AdamW, or Muon.
        lr_adamw: with `muon`, rate of AdamW on all parameters but the matrices of the blocks.
        momentum: decay of Muon's running mean of gradients.
        beta2: decay of Adam's second moments.
        loss: `raw` squared error as in the paper, `normalised` by E[y²] of the class, or by its `no_context` optimum.
        precision: precision of matrix products in training: `float32`, `tf32`, `bf16`, or `auto`, in whose place the
            faster of `float32` and `bf16` on this machine is recorded; the weights are always float32.
        compile: whether torch.compile makes the step (worth it on a GPU; needs a C++ compiler on a CPU).
        threads: CPU threads; sums are split by thread, so weights repeat bit for bit only at the same number.
    """

    steps: int
    batch_size: int = 64
    optimizer: Literal["adam", "adamw", "muon"] = "adam"
    lr: float = 1e-4
    lr_adamw: float = field(default=3e-3, metadata={FORMER_NAME: "lr_beside"})
    momentum: float = 0.95
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    warmup_steps: int = 0
    weight_decay: float = 0.0
    beta2: float = 0.999
    grad_clip: float = 0.0
    loss: Literal["raw", "normalised", "no_context"] = "raw"
    precision: Literal["float32", "tf32", "bf16", "auto"] = "float32"
    compile: bool = False
    threads: int = 1

    def __post_init__(self) -> None:
        require_positive(self, "steps", "batch_size", "lr", "lr_adamw", "beta2", "momentum", "threads")
        require_at_most(self, 1024, "threads")
        require_not_negative(self, "warmup_steps", "weight_decay", "grad_clip")
        for name in ("beta2", "momentum"):
            if getattr(self, name) >= 1:
                raise UserError(f"recipe.{name}={getattr(self, name)}: must be below 1")
        if self.precision == "auto":
            object.__setattr__(self, "precision", faster_precision())


@dataclass(frozen=True)
class RecordConfig:
    """When a run writes to disk.

    Attributes:
        eval_every: steps between evaluations, which are rows of history.jsonl.
        eval_prompts: held-out prompts per class and input distribution of an evaluation.
        save_every: steps between saves, from which --resume goes on.
        snapshots: log-spaced steps whose weights are kept.
    """

    eval_every: int = 1000
    eval_prompts: int = 256
    save_every: int = 1000
    snapshots: int = 20

    def __post_init__(self) -> None:
        require_positive(self, "eval_every", "eval_prompts", "save_every")
        require_not_negative(self, "snapshots")
        require_at_most(self, 10_000, "snapshots")


@dataclass(frozen=True)
class Seeds:
    """One seed per stream: runs of the authors' `train.py` (1c896e3) that share a stream share their first block.


    Attributes:
        init: seed of the first weights; None if it is unknown, as in a run that another program has made.
        data: seed of functions and inputs; or None.
        task: seed of the choice of function classes; or None.
    """

    init: int | None = None
    data: int | None = None
    task: int | None = None

    @property
    def are_known(self) -> bool:
        """Whether every stream has its seed."""
        return None not in (self.init, self.data, self.task)

    def __str__(self) -> str:
        return f"{self.init} / {self.data} / {self.task}" if self.are_known else "unknown"

    @classmethod
    def derive(cls, seed: int, curriculum: str) -> "Seeds":
        """Independent seeds for every (seed, curriculum): `mixed` and `random` at seed 0 share nothing."""
        return cls(*(stream_seed(seed, curriculum, name) for name in ("init", "data", "task")))


@dataclass(frozen=True)
class RunConfig:
    """Everything that determines a run's weights, and how often it writes.

    Attributes:
        seed_label: a user's name for unknown seeds: runs with different labels are independent, those with one label
            are one seed. Without a label, unknown seeds are neither equal to any others nor independent of them.
    """

    curriculum: str
    seeds: Seeds = field(default_factory=Seeds, kw_only=True)
    model: ModelConfig
    recipe: RecipeConfig
    data: DataConfig = field(default_factory=DataConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    growth: GrowthConfig = field(default_factory=GrowthConfig)
    instruction: InstructionConfig = field(default_factory=InstructionConfig)
    record: RecordConfig = field(default_factory=RecordConfig)
    init: InitConfig = field(default_factory=InitConfig)
    clamping: ClampingConfig = field(default_factory=ClampingConfig)
    seed_label: str = ""

    def __post_init__(self) -> None:
        needed = self.layout.n_tokens(self.data.n_points)
        if needed > self.model.n_ctx:
            raise UserError(
                f"data.n_points={self.data.n_points} needs model.n_ctx >= {needed} (given: {self.model.n_ctx})"
            )
        for name in self.evaluated_classes:
            if function_class(name).least_dims > self.model.n_dims:
                raise UserError(
                    f"{name} needs model.n_dims >= {function_class(name).least_dims} (given: {self.model.n_dims})"
                )
        for name in self.data.inputs:
            input_distribution(name)
        self.check_instruction()
        self.init.check(self.model)
        self.clamping.check(self.model, self.recipe.steps)

    def check_instruction(self) -> None:
        if self.instruction.kind == "one_hot" and len(self.instruction_values) > self.model.n_dims:
            raise UserError(
                f"instruction.kind=one_hot needs a coordinate for each of {len(self.instruction_values)} values: "
                f"model.n_dims >= {len(self.instruction_values)} (given: {self.model.n_dims}); or use vector"
            )
        first_points = self.growth.points_at(0, self.data.n_points)
        if self.instruction.kind != "none" and self.instruction.at >= 2 * first_points:
            raise UserError(f"instruction.at={self.instruction.at}: prompts have only {2 * first_points} tokens")

    @property
    def instruction_values(self) -> tuple[str, ...]:
        """The values that the instruction encodes, a coordinate or vector each."""
        return {"class": self.evaluated_classes, "inputs": self.data.inputs, "nothing": ("",)}[self.instruction.encodes]

    @property
    def layout(self) -> Layout:
        """The positions of instruction and pairs in the prompts of this run."""
        if self.instruction.kind == "none":
            return Layout()
        n_vectors = len(self.instruction_values) if self.instruction.kind == "vector" else 0
        return Layout(self.instruction.tokens, self.instruction.at, n_vectors)

    def parsed_curriculum(self) -> Curriculum:
        """The rule by which steps choose function classes."""
        return parse_curriculum(
            self.curriculum, self.data.classes, self.recipe.steps, self.schedule.edges, self.schedule.probabilities
        )

    def parsed_schedule(self) -> Schedule:
        """The rule by which steps choose function classes and input distributions."""
        return Schedule(
            self.parsed_curriculum(), self.schedule.inputs, self.data.inputs, self.schedule.inputs_within == "block"
        )

    def scale(self, name: str, inputs: str | None = None) -> Scale:
        """E[y²] of a function class as this run draws it, on an input distribution (default: its first)."""
        return second_moment(*self.population(name, inputs))

    def no_context_scale(self, name: str, inputs: str | None = None) -> Scale:
        """The error of the no-context optimum on it."""
        return no_context_moment(*self.population(name, inputs))

    def predict_without_context(self, name: str, xs: Float[Tensor, "batch point dim"]) -> Float[Tensor, "batch point"]:
        """E[y given x], the no-context optimum, over fresh functions of a class."""
        return function_class(name).no_context(xs, self.data.weights)

    def population(self, name: str, inputs: str | None) -> tuple[str, str, int, WeightKind, int]:
        return name, inputs or self.data.inputs[0], self.model.n_dims, self.data.weights, self.data.rotation

    def second_moment(self, name: str, inputs: str | None = None) -> float:
        """E[y²]: the error of predicting zero, and the unit of NMSE."""
        return self.scale(name, inputs).value

    @property
    def trained_classes(self) -> tuple[str, ...]:
        """The function classes that the run trains on, in order."""
        return self.parsed_curriculum().reached

    @property
    def evaluated_classes(self) -> tuple[str, ...]:
        """The function classes on which the run is evaluated unless others are named."""
        return tuple(dict.fromkeys((*self.data.classes, *self.trained_classes)))


def stream_seed(*names: object) -> int:
    """A 32-bit seed for the stream with these names; different names give unrelated seeds.

    >>> stream_seed(0, "mixed", "data") == stream_seed(0, "mixed", "data") != stream_seed(0, "mixed", "init")
    True
    """
    text = "/".join(str(name) for name in names)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")
