"""The scan of frames on a GPU: the same pixels as on the CPU, so that every bit of a spot is the same."""
