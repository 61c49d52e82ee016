"""Files of other programs, to and from our conventions."""
