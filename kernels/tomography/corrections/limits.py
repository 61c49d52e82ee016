"""What the parameters of the corrections may be."""

from __future__ import annotations

from kernels.errors import KernelError


def check(name: str, holds: bool, value: float, allowed: str) -> None:
    """Raise `KernelError` (exit 2) unless the value `holds`."""
    if not holds:
        raise KernelError(f"Stripe removal: {name} is {value:g}; it must be {allowed}.")


def check_width(width: int) -> None:
    """As `check`, for columns of a median."""
    check("the width of the median", width >= 3 and width % 2 == 1, width, "an odd number from 3 on")
