"""What all kernels share that compute on a GPU: which one, by what, and what to do when its memory runs out."""
