"""The kernels about products as data. Imports nothing heavy."""

from __future__ import annotations

from kernels.spec import KernelArgument, KernelSpec

KERNELS: tuple[KernelSpec, ...] = (
    KernelSpec(
        "products.verify",
        "compare products with the checksums that their makers wrote beside them",
        "kernels.products.verify:verify",
        "1.0",
        (
            KernelArgument(
                "input",
                "path",
                "a folder of products and their manifests, wherever it has come to lie since they were made.",
                required=True,
                role="input",
            ),
        ),
    ),
)
