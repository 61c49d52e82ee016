"""The kernels of HEDM as they are called: files in, files out, figures and warnings."""
