"""The far field on a GPU: the CPU's operations in the CPU's order, by other hands."""
