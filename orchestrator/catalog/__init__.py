"""What the catalog is filled with and what is made of it: metadata, provenance, retention."""
