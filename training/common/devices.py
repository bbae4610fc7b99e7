"""The devices of this machine."""

from typing import Literal

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


def faster_precision() -> Literal["float32", "bf16"]:
    """The precision in which this machine's GPU, or its CPU where it has none, multiplies matrices faster.

    A CPU with bfloat16 dot products (avx512_bf16) does so four to ten times as fast as in float32; one without them
    is slower in bfloat16.
    """
    import torch

    if torch.cuda.is_available():
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
    has_products = torch.cpu._is_avx512_bf16_supported()  # pyright: ignore[reportPrivateUsage] - torch 2.6 has no other
    return "bf16" if has_products else "float32"
