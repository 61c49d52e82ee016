"""Slurm as the product sees it."""
