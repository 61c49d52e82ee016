"""Packages of others that reconstruct in the place of ours, with our arguments, geometry and gain."""
