"""Runs flow while everything they stand on dies, hangs and comes back; afterwards an auditor looks at what is left.

python -m tests.chaos.storm [--runs 500] [--minutes 5] [--seed 1]
"""
