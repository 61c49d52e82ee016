"""XPCS on a GPU: the same integers as on the CPU, so that every bit of a result is the same."""
