"""Far field: from a list of spots to grains, each with orientation, position and strain.

`find_grains` does all of it: Friedel pairs where the scan turns all around, fibres where it does not, refinement of
twelve numbers a grain, and each spot to one grain. What the tolerances mean is told at `Limits`.
"""
