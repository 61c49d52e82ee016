"""Slurm: client, job templates, a one-machine cluster. Empty until runs go to schedulers; today they run on the host."""
