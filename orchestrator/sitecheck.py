"""Is a site as its profile says? Filled by `beamway site check`."""
