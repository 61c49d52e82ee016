"""Slurm: client, job templates, a one-machine cluster. Empty as yet: runs go to the agent's own host."""
