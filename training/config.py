"""A run's configuration: frozen dataclasses, one per concern, read from TOML presets and saved as JSON.

A preset file has one table per dataclass below. `--set recipe.lr=1e-3` replaces one value of it; names, types and
ranges are checked, and an unknown name is an error.
"""

import dataclasses
import hashlib
import tomllib
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from typing import Any, Literal, TypeVar

from training.curriculum import Curriculum, parse_curriculum
from training.errors import UserError, one_of
from training.function_classes import WeightKind, function_class, function_classes

Config = TypeVar("Config")


@dataclass(frozen=True)
class ModelConfig:
    """Sizes and initialisation of the transformer."""

    n_layers: int
    n_heads: int
    d_model: int
    n_dims: int
    n_ctx: int
    init_std: float = 0.02
    read_init: Literal["normal", "linear"] = "normal"

    def __post_init__(self) -> None:
        require_positive(self, "n_layers", "n_heads", "d_model", "n_dims", "n_ctx", "init_std")
        if self.d_model % self.n_heads:
            raise UserError(f"model.d_model={self.d_model} is not a multiple of model.n_heads={self.n_heads}")

    @property
    def d_head(self) -> int:
        return self.d_model // self.n_heads


@dataclass(frozen=True)
class DataConfig:
    """What the prompts are made of.

    Attributes:
        classes: the function classes, in the order in which a curriculum introduces them.
        n_points: (x, y) pairs per prompt.
        weights: `standard` draws w ~ N(0, I) as the paper does, `unit` divides it by its norm, so that E[y²] = 1.
    """

    classes: tuple[str, ...] = ("linear", "quadratic", "cubic")
    n_points: int = 100
    weights: WeightKind = "standard"

    def __post_init__(self) -> None:
        require_positive(self, "n_points")
        if not self.classes:
            raise UserError("data.classes is empty: name at least one function class")
        if len(set(self.classes)) < len(self.classes):
            raise UserError(f"data.classes={','.join(self.classes)}: a class is named twice")


@dataclass(frozen=True)
class RecipeConfig:
    """How the weights are found.

    Attributes:
        schedule: `constant`, or `cosine` from lr down to 0; both after `warmup_steps` of linear rise.
        grad_clip: largest gradient norm; 0 does not clip.
        loss: `raw` squared error as in the paper, or `normalised` by E[y²] of the class.
        threads: CPU threads; sums are split by thread, so weights repeat bit for bit only at the same number.
    """

    steps: int
    batch_size: int = 64
    optimizer: Literal["adam", "adamw"] = "adam"
    lr: float = 1e-4
    schedule: Literal["constant", "cosine"] = "constant"
    warmup_steps: int = 0
    weight_decay: float = 0.0
    grad_clip: float = 0.0
    loss: Literal["raw", "normalised"] = "raw"
    threads: int = 1

    def __post_init__(self) -> None:
        require_positive(self, "steps", "batch_size", "lr", "threads")
        require_not_negative(self, "warmup_steps", "weight_decay", "grad_clip")


@dataclass(frozen=True)
class RecordConfig:
    """What a run leaves on disk while it trains: evaluations, resume states and `snapshots` log-spaced weights."""

    eval_every: int = 1000
    eval_prompts: int = 256
    save_every: int = 1000
    snapshots: int = 20

    def __post_init__(self) -> None:
        require_positive(self, "eval_every", "eval_prompts", "save_every")
        require_not_negative(self, "snapshots")


@dataclass(frozen=True)
class Seeds:
    """One seed per stream, since runs that share a stream share their heads (paper.md, section 4.3)."""

    init: int
    data: int
    task: int

    @classmethod
    def derive(cls, seed: int, curriculum: str) -> "Seeds":
        """Independent seeds for every (seed, curriculum): `mixed` and `random` at seed 0 share nothing."""
        streams = {name: stream_seed(seed, curriculum, name) for name in ("init", "data", "task")}
        return cls(**streams)


@dataclass(frozen=True)
class RunConfig:
    """Everything that determines a run's weights, and how often it writes."""

    curriculum: str
    seeds: Seeds
    model: ModelConfig
    recipe: RecipeConfig
    data: DataConfig = field(default_factory=DataConfig)
    record: RecordConfig = field(default_factory=RecordConfig)

    def __post_init__(self) -> None:
        if 2 * self.data.n_points > self.model.n_ctx:
            raise UserError(
                f"data.n_points={self.data.n_points} needs model.n_ctx >= {2 * self.data.n_points} "
                f"(given: {self.model.n_ctx})"
            )
        function_classes(self.data.classes)
        self.parsed_curriculum()

    def parsed_curriculum(self) -> Curriculum:
        """The rule by which steps choose function classes."""
        return parse_curriculum(self.curriculum, self.data.classes, self.recipe.steps)

    def second_moment(self, name: str) -> float:
        """E[y²] of a function class as this run draws it: the error of predicting zero, and the unit of NMSE."""
        return function_class(name).second_moment(self.model.n_dims, self.data.weights)

    @property
    def trained_classes(self) -> tuple[str, ...]:
        """The function classes that the run trains on, in order."""
        return self.parsed_curriculum().classes

    @property
    def evaluated_classes(self) -> tuple[str, ...]:
        """The function classes on which the run is looked at unless others are named."""
        return tuple(dict.fromkeys((*self.data.classes, *self.trained_classes)))


def stream_seed(*names: object) -> int:
    """A 32-bit seed for the stream with these names; different names give unrelated seeds.

    >>> stream_seed(0, "mixed", "data") == stream_seed(0, "mixed", "data") != stream_seed(0, "mixed", "init")
    True
    """
    text = "/".join(str(name) for name in names)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")


def preset_names() -> list[str]:
    files = resources.files("training").joinpath("presets").iterdir()
    return sorted(file.name.removesuffix(".toml") for file in files if file.name.endswith(".toml"))


def from_preset(preset: str, curriculum: str, seed: int, settings: Sequence[str] = ()) -> RunConfig:
    """The configuration of a run: a preset, a curriculum, a seed, and `section.key=value` replacements.

    Raises:
        UserError: unknown preset or key, malformed or invalid value.

    >>> from_preset("tiny", "mixed", 0, ["recipe.lr=1e-4"]).recipe.lr
    0.0001
    """
    if preset not in preset_names():
        raise one_of("preset", preset, preset_names())
    text = resources.files("training").joinpath("presets", f"{preset}.toml").read_text()
    values = tomllib.loads(text)
    values |= {"curriculum": curriculum, "seeds": dataclasses.asdict(Seeds.derive(seed, curriculum))}
    for setting in settings:
        replace_setting(values, setting)
    return from_dict(RunConfig, values)


def replace_setting(values: dict[str, Any], setting: str) -> None:
    key, equals, text = setting.partition("=")
    section, dot, name = key.partition(".")
    if not equals or not dot or not text:
        raise UserError(f"--set {setting}: not of the form section.key=value (for example recipe.lr=1e-3)")
    valid = settable_keys()
    if key not in valid:
        raise one_of("--set key", key, valid)
    values.setdefault(section, {})[name] = parsed_value(text)


def parsed_value(text: str) -> Any:
    """The text as a TOML value, or as the bare word that it is (`data.weights=unit`)."""
    try:
        parsed = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        return text
    return parsed["value"] if len(parsed) == 1 else text  # a line break may have begun a second key


def settable_keys() -> list[str]:
    """Every `section.key` that a preset or `--set` can name."""
    sections = {f.name: f.type for f in dataclasses.fields(RunConfig) if dataclasses.is_dataclass(f.type)}
    return [f"{name}.{f.name}" for name, section in sections.items() for f in dataclasses.fields(section)]


def to_dict(config: RunConfig) -> dict[str, Any]:
    return dataclasses.asdict(config)


def from_dict(cls: type[Config], values: Mapping[str, Any], where: str = "") -> Config:
    """The dataclass with these values, strictly: every key known, every required key there, every type right.

    Raises:
        UserError: names the key (`recipe.lr`), the value and what is valid.
    """
    fields = {f.name: f for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    for key in values:
        if key not in fields:
            raise one_of("configuration key", where + key, [where + name for name in fields])
    for name, f in fields.items():
        required = f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
        if required and name not in values:
            raise UserError(f"configuration key {where + name} is missing")
    checked = {key: checked_value(fields[key].type, value, where + key) for key, value in values.items()}
    return cls(**checked)


def checked_value(kind: Any, value: Any, key: str) -> Any:
    """The value as `kind`, which is a dataclass, a Literal, a tuple of words, int, float or str."""
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        if not isinstance(value, Mapping):
            raise UserError(f"{key}={value!r}: a table of settings is needed")
        return from_dict(kind, value, key + ".")
    origin = typing.get_origin(kind)
    if origin is Literal:
        if value not in typing.get_args(kind):
            raise one_of(key, str(value), typing.get_args(kind))
        return value
    if origin is tuple:
        words = value.split(",") if isinstance(value, str) else value
        if not isinstance(words, list | tuple) or not all(isinstance(word, str) for word in words):
            raise UserError(f"{key}={value!r}: a list of names is needed")
        return tuple(words)
    return checked_number(kind, value, key)


def checked_number(kind: Any, value: Any, key: str) -> Any:
    accepted = (int, float) if kind is float else (kind,)
    if isinstance(value, bool) or not isinstance(value, accepted):
        wanted = {int: "a whole number", float: "a number", str: "a word"}[kind]
        raise UserError(f"{key}={value!r}: {wanted} is needed")
    return kind(value)


def require_positive(config: object, *names: str) -> None:
    for name in names:
        if not getattr(config, name) > 0:
            raise UserError(f"{section_of(config)}.{name}={getattr(config, name)}: must be above 0")


def require_not_negative(config: object, *names: str) -> None:
    for name in names:
        if not getattr(config, name) >= 0:
            raise UserError(f"{section_of(config)}.{name}={getattr(config, name)}: must not be negative")


def section_of(config: object) -> str:
    return type(config).__name__.removesuffix("Config").lower()
