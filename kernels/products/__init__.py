"""Kernels about what kernels have made."""
