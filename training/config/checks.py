"""Refusals that the sections of a configuration share; a message names the key and what is valid."""

from collections import Counter

from training.common.errors import UserError


def require_positive(config: object, *names: str) -> None:
    for name in names:
        if not getattr(config, name) > 0:
            raise UserError(f"{section_of(config)}.{name}={getattr(config, name)}: must be above 0")


def require_not_negative(config: object, *names: str) -> None:
    for name in names:
        if not getattr(config, name) >= 0:
            raise UserError(f"{section_of(config)}.{name}={getattr(config, name)}: must not be negative")


def require_at_most(config: object, most: int, *names: str) -> None:
    for name in names:
        if getattr(config, name) > most:
            raise UserError(f"{section_of(config)}.{name}={getattr(config, name)}: must be at most {most}")


def require_names(key: str, names: tuple[str, ...]) -> None:
    if not names:
        raise UserError(f"{key} is empty: name at least one")
    if len(set(names)) < len(names):
        raise UserError(f"{key}={','.join(names)}: {Counter(names).most_common(1)[0][0]} is named twice")


def section_of(config: object) -> str:
    return type(config).__name__.removesuffix("Config").lower()
