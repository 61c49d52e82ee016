"""Iterative reconstruction of parallel-beam scans on a matched pair of projectors."""
