"""Slurm: what its commands are told (`argv`), what they print (`parse`, `states`), the adapter (`client`), its
reservations, and a real Slurm on one machine for trial and tests (`cluster`)."""
