"""What follows from counts and from g2: scattering, its change with time, relaxation and what it depends on."""
