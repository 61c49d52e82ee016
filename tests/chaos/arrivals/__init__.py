"""Detectors write whole, broken, copied and replaced scans while all that takes them up dies; then an auditor looks.

python -m tests.chaos.arrivals [--scans 200] [--minutes 1] [--seed 1]
"""
