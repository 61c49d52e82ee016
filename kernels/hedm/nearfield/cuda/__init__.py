"""The near field on a GPU: the same counts as on the CPU, so that every bit of a map is the same."""
