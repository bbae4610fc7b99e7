"""Reads one configuration of another program: typed values by dotted key, and every reason against an import."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from training.common.errors import UserError
from training.common.terminal import shortened
from training.config.config import RunConfig
from training.config.parse import from_dict, replace_setting

LONGEST_VALUE = 60  # signs of a value in a message
OFF = (None, False)
"""Values of a switch that changes nothing."""
OVERRIDABLE = ("data.classes", "data.inputs", "data.n_points", "data.weights")
"""What `--set` may say in the place of a source that says nothing, or what has no equal here."""


@dataclass(frozen=True)
class Requirement:
    """What a setting of another program has to be, for its network to be this program's.

    Attributes:
        key: dotted.
        accepted: its values that are.
        meaning: what the accepted values stand for, in words.
    """

    key: str
    accepted: tuple[object, ...]
    meaning: str


@dataclass
class Settings:
    """A configuration of another program.

    Attributes:
        values: its tables.
        set_by_user: `section.key=value` for keys of this program's configuration.
        reasons: all that speaks against an import, in the order in which it was noticed.
        notes: what an importer should know and that is no reason against it.
        is_complete: every value that was read is valid; otherwise there is a reason and a valid number in its place.
    """

    values: Mapping[str, Any]
    set_by_user: Sequence[str] = ()
    reasons: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    is_complete: bool = True

    def __post_init__(self) -> None:
        for setting in self.set_by_user:
            if setting.partition("=")[0] not in OVERRIDABLE:
                raise UserError(
                    f"--set {setting}: an import can set {', '.join(OVERRIDABLE)} only; the rest is the source's"
                )

    def is_set(self, key: str) -> bool:
        """Whether the user has set this key of our configuration."""
        return any(setting.partition("=")[0] == key for setting in self.set_by_user)

    def refuse(self, reason: str, unless_set: str = "") -> None:
        """Add a reason; not where the user has set the key of our configuration that it is about."""
        if not (unless_set and self.is_set(unless_set)):
            self.reasons.append(reason)

    def replace(self, reason: str) -> None:
        """Add a reason for a value that is not valid, in whose place a valid one is used from here on."""
        if reason not in self.reasons:
            self.reasons.append(reason)
        self.is_complete = False

    def has(self, key: str) -> bool:
        """Whether there is a dotted key."""
        table, _, name = key.rpartition(".")
        holder = self.get(table) if table else self.values
        return isinstance(holder, Mapping) and name in holder

    def get(self, key: str) -> Any:
        """The value of a dotted key; None where there is none."""
        value: Any = self.values
        for part in key.split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
        return value

    def table(self, key: str) -> Mapping[str, Any]:
        """A table; empty where there is none."""
        value = self.get(key)
        if value is not None and not isinstance(value, Mapping):
            self.refuse(f"{key} is {written(value)}: a table is needed")
        return value if isinstance(value, Mapping) else {}

    def whole(self, key: str, default: int | None = None, at_least: int = 1) -> int:
        """A whole number; the lowest valid one, with a reason, where it is none."""
        value = default if self.get(key) is None else self.get(key)
        if type(value) is int and at_least <= value < 2**31:
            return value
        self.replace(f"{key} is {written(value)}: a whole number of at least {at_least} is needed")
        return at_least

    def number(self, key: str, default: float) -> float:
        """A number."""
        value = default if self.get(key) is None else self.get(key)
        if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e30:
            return float(value)
        self.replace(f"{key} is {written(value)}: a number is needed")
        return default

    def word(self, key: str, default: str = "") -> str:
        """A word."""
        value = default if self.get(key) is None else self.get(key)
        if isinstance(value, str) and value:
            return value
        self.replace(f"{key} is {written(value)}: a word is needed")
        return default

    def require(self, requirements: Sequence[Requirement]) -> None:
        """Add a reason for every setting that is there and is not what it has to be."""
        for requirement in requirements:
            value = self.get(requirement.key)
            if self.has(requirement.key) and not any(is_same(value, accepted) for accepted in requirement.accepted):
                self.refuse(f"{requirement.key} is {written(value)}: only {requirement.meaning}")

    def refuse_unknown(self, table: str, known: Sequence[str]) -> None:
        """Add a reason for every key of a table that is not known here, unless it is off."""
        for key, value in self.table(table).items():
            if key not in known and value not in OFF:
                self.refuse(f"{table}.{key} is {written(value)}: what it changes is not known here")

    def run_config(self, values: dict[str, Any]) -> RunConfig | None:
        """Our configuration with these values and those that the user has set; None, with a reason, if it is none."""
        if not self.is_complete:
            return None
        for setting in self.set_by_user:
            replace_setting(values, setting)
        try:
            return from_dict(RunConfig, values)
        except UserError as error:
            self.refuse(str(error))
            return None


def is_same(value: object, accepted: object) -> bool:
    """Equal, and not a truth value beside a number.

    >>> is_same(1, True), is_same(-1, -1.0)
    (False, True)
    """
    return isinstance(value, bool) == isinstance(accepted, bool) and value == accepted


def written(value: object) -> str:
    """A value in a message: plain ones as they are, of containers their kind only.

    >>> written("relu"), written({"a": [1]})
    ('relu', 'a table')
    """
    if value in (None, ""):
        return "missing"
    if isinstance(value, Mapping):
        return "a table"
    if isinstance(value, list | tuple):
        return "a list"
    return shortened(str(value), LONGEST_VALUE)


def grown(start: int, by: int, every: int, end: int, step: int) -> int:
    """A curriculum's value in a step, as in Garg et al. 2022: `by` more every `every` steps, at most `end`.

    >>> grown(11, 2, 2000, 41, 4000)
    15
    """
    return min(start + by * (step // every), end)


def refused(source: object, reasons: Sequence[str]) -> UserError:
    """The error for a source that cannot be imported, with all its reasons."""
    if len(reasons) == 1:
        return UserError(f"{source} cannot be imported: {reasons[0]}")
    listed = "; ".join(f"({number}) {reason}" for number, reason in enumerate(reasons, 1))
    return UserError(f"{source} cannot be imported, for {len(reasons)} reasons: {listed}")
