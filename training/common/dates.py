"""The date that results carry: of now, or of SOURCE_DATE_EPOCH, with which equal runs leave equal files."""

import os
from datetime import UTC, datetime

from training.common.errors import UserError

EPOCH = "SOURCE_DATE_EPOCH"
"""Seconds since 1970, a convention of reproducible builds (reproducible-builds.org/specs/source-date-epoch)."""


def now() -> datetime:
    """The present, in UTC; where SOURCE_DATE_EPOCH is set, that moment.

    Raises:
        UserError: SOURCE_DATE_EPOCH is no number of seconds.
    """
    seconds = os.environ.get(EPOCH)
    if seconds is None:
        return datetime.now(UTC)
    try:
        return datetime.fromtimestamp(int(seconds), UTC)
    except (ValueError, OverflowError, OSError):
        raise UserError(f"{EPOCH}={seconds}: a whole number of seconds since 1970 is needed") from None
