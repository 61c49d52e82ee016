"""A stand-in for Globus Auth and Transfer that moves real bytes, for the real globus-sdk; with faults on request.

    with Globus() as globus:
        raw = globus.collection(tmp_path / "raw")
        globus.faults.corrupt_files = 1

Directories stand for collections. What is not asked for in `faults` happens as at Globus: bytes are written straight
under the final name, checksums are compared when that is asked for, a submission id is carried out once.
"""

from tests.globus.service import CLIENT, SECRET, Globus

__all__ = ["CLIENT", "SECRET", "Globus"]
