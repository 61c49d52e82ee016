"""High-energy diffraction microscopy: from detector frames to grains (far field) and orientation maps (near field).

Inside: lab x along the beam, z up along the rotation axis, y = z × x; omega right-handed about +z; µm, Å and radians;
no 2 pi in reciprocal vectors; orientations take crystal cartesian to sample; strain as 11, 22, 33, 23, 13, 12.
"""
