"""The registered kernels of XPCS: what they open, what they call, and what they write."""
