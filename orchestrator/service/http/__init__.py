"""The service over HTTP: one application, its routes a module each."""
