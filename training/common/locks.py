"""Locks between processes, which the kernel releases when their holder ends, however it ends."""

from training.common.errors import UserError


def lock_exclusively(descriptor: int) -> bool:
    """Lock an open file or directory; False if another process holds it. Closing the descriptor releases it.

    Raises:
        UserError: this platform has no such locks.
    """
    try:
        import fcntl
    except ImportError:
        raise UserError("locking files needs Linux or macOS; on Windows, use WSL") from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
