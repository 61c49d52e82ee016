"""Rays that are oblique to the rotation axis: cone beams from a point source, and axes tilted against the beam."""
