"""The devices of this machine."""

from training.common.errors import UserError


def check_device(device: str) -> str:
    """The device, if this machine has it.

    Raises:
        UserError: this machine lacks it, or there is no such device.
    """
    import torch

    available = ["cpu"]
    if torch.cuda.is_available():
        available += ["cuda"] + [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    if device not in available:
        raise UserError(f"--device {device}: not available here (valid: {', '.join(available)})")
    return device
