"""What a copy would move: the source listed and judged before the first byte, and again after the last."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass

from orchestrator.errors import InputError


@dataclass(frozen=True)
class Fingerprint:
    """A file that still has it was not written meanwhile (as far as its file system's clock ticks)."""

    size: int
    mtime_ns: int
    inode: int
    device: int

    @classmethod
    def of(cls, status: os.stat_result) -> Fingerprint:
        return cls(status.st_size, status.st_mtime_ns, status.st_ino, status.st_dev)


@dataclass(frozen=True)
class Survey:
    """Everything below `root`, by relative name; a single file is there under the empty name. Sorted."""

    root: str
    files: dict[str, Fingerprint]
    links: dict[str, str]  # relative name -> relative target, within the root
    folders: tuple[str, ...]  # parents before children

    @property
    def is_tree(self) -> bool:
        return "" not in self.files

    @property
    def bytes(self) -> int:
        return sum(f.size for f in self.files.values())

    def path(self, name: str) -> str:
        return os.path.join(self.root, name) if name else self.root


def survey(source: str) -> Survey:
    """List `source`. `InputError`: it is missing, empty, not of regular files, or links out of the tree."""
    root = os.path.abspath(source)
    try:
        status = os.stat(root)
        if stat.S_ISREG(status.st_mode):
            found = Survey(root, {"": Fingerprint.of(status)}, {}, ())
        elif stat.S_ISDIR(status.st_mode):
            found = _survey_tree(root)
        else:
            raise InputError(f"The source '{source}' is neither a file nor a directory.")
    except FileNotFoundError:
        hint = "It is a link whose target is gone." if os.path.islink(root) else ""
        raise InputError(f"The source '{source}' is not there.", hint) from None
    except OSError as error:
        raise InputError(f"The source '{source}' cannot be read: {error.strerror}.") from error
    if found.bytes == 0:
        raise InputError(f"The source '{source}' is empty.", "It may still be being written.")
    return found


def _survey_tree(root: str) -> Survey:
    real = os.path.realpath(root)
    files: dict[str, Fingerprint] = {}
    links: dict[str, str] = {}
    folders: list[str] = []
    waiting = [""]
    while waiting:
        below = waiting.pop()
        with os.scandir(os.path.join(root, below)) as entries:
            for entry in entries:
                name = os.path.join(below, entry.name)
                if entry.is_symlink():
                    links[name] = _inside(entry.path, name, real)
                elif entry.is_dir(follow_symlinks=False):
                    folders.append(name)
                    waiting.append(name)
                elif entry.is_file(follow_symlinks=False):
                    files[name] = Fingerprint.of(entry.stat(follow_symlinks=False))
                else:
                    raise InputError(f"The source holds '{name}', which is not a regular file.")
    return Survey(root, dict(sorted(files.items())), links, tuple(sorted(folders)))


def _inside(path: str, name: str, root: str) -> str:
    """The target of a link within the tree, relative to where the link stands."""
    target = os.path.realpath(path)
    if os.path.commonpath((root, target)) != root:
        raise InputError(f"The source holds the link '{name}' to '{target}', outside of it.")
    if not os.path.exists(target):
        raise InputError(f"The source holds the link '{name}' to '{target}', which is not there.")
    return os.path.relpath(target, os.path.join(root, os.path.dirname(name)))
