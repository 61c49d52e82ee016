"""Packages of others that find the grains in the place of ours: same spots, geometry, crystal, limits and table."""
