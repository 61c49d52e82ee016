"""A host by ssh as one end of a copy: a shell there that is told one thing after the other.

All it takes there are a POSIX shell and the GNU programs. Names go there as quoted words of the shell, byte for byte,
and come back between zero bytes, so any name passes.
"""

from __future__ import annotations

import os
import re
import secrets
import select
import shlex
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import IO

from orchestrator.errors import InputError
from orchestrator.outside import effect
from orchestrator.transfer.base import TransferCancelled, TransferDown, TransferError, TransferRefused
from orchestrator.transfer.ends import Entry, Listing
from orchestrator.transfer.ssh import Address, explained

SLOWEST_SUM_BYTES_PER_S = 5e6
LAST_WORDS_S = 5.0
_PROGRAMS = {"sha256": "sha256sum", "sha1": "sha1sum", "md5": "md5sum", "sha512": "sha512sum"}
_FACTS = r"%y\0%s\0%D-%i-%T@\0"  # of find: kind, size, and what tells a file that was written or replaced


class SshEnd:
    """Implements `ends.End`. It connects at the first word, and again when the connection was lost."""

    at_once = 2

    def __init__(self, host: Address, *, config: str = "", answer_s: float = 120.0) -> None:
        self._address, self._config, self._answer_s = host, config, answer_s
        self.place = host.place
        self._shell: subprocess.Popen[bytes] | None = None
        self._errors: IO[bytes] | None = None  # what ssh itself says
        self._closed = False
        self._talk = threading.Lock()

    # ---- words

    def _told(self, *lines: str, about: str, source: bool = False, more_s: float = 0.0, again: bool = True) -> bytes:
        """What the last of the lines prints; an error of any of them is raised as what it means for `about`."""
        with self._talk:
            try:
                status, out, errors = self._asked(" && ".join(lines), self._answer_s + more_s)
            except TransferDown:
                if not again or self._closed:
                    raise
                status, out, errors = self._asked(" && ".join(lines), self._answer_s + more_s)
        if status:
            raise explained(errors, self.shown(about), source=source)
        return out

    def _asked(self, line: str, answer_s: float) -> tuple[int, bytes, str]:
        if self._closed:
            raise TransferCancelled(f"The copy at '{self.place}' was ended.")
        if self._shell is None:
            self._errors = tempfile.TemporaryFile()  # noqa: SIM115  (closed with the shell)
            words = [*self._address.argv(self._config), "--", self._address.host, "sh"]
            self._shell = subprocess.Popen(
                words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, start_new_session=True
            )
        shell, mark = self._shell, secrets.token_hex(16)
        assert shell.stdin is not None
        # What it says of errors comes the same way, after the mark: ssh's own words have theirs.
        script = f"LC_ALL=C; export LC_ALL; e=$({{ {line} ; }} </dev/null 2>&1 >&4); r=$?"
        text = f"exec 4>&1; {script}; printf '%s %d %s %s' {mark} $r \"$e\" {mark[::-1]}\n"
        try:
            shell.stdin.write(os.fsencode(text))
            shell.stdin.flush()
            answer = self._answer(shell, mark[::-1].encode(), answer_s)
        except (BrokenPipeError, EOFError, TimeoutError) as error:
            raise self._lost(isinstance(error, TimeoutError)) from None
        out, _, rest = answer.partition(mark.encode())
        status, _, said = rest.strip().partition(b" ")
        return int(status), out, said.decode(errors="backslashreplace")

    def _answer(self, shell: subprocess.Popen[bytes], end: bytes, answer_s: float) -> bytes:
        assert shell.stdout is not None
        out, over, handle = bytearray(), time.monotonic() + answer_s, shell.stdout.fileno()
        while True:
            left = over - time.monotonic()
            if left <= 0:
                raise TimeoutError
            if not select.select([handle], [], [], min(left, 1.0))[0]:
                continue
            block = os.read(handle, 1 << 20)
            if not block:
                raise EOFError
            out += block
            if out.endswith(end):
                return bytes(out[: -len(end)])

    def _lost(self, silent: bool) -> Exception:
        shell, errors = self._shell, self._errors
        assert shell is not None
        assert errors is not None
        if not silent:
            with suppress(subprocess.TimeoutExpired):
                shell.wait(LAST_WORDS_S)
        errors.seek(0)
        said = errors.read().decode(errors="backslashreplace")
        self._drop()
        if self._closed:
            return TransferCancelled(f"The copy at '{self.place}' was ended.")
        if silent:
            return TransferDown(f"The host of '{self.place}' does not answer.", "It is tried again later.")
        return explained(said, self.place)

    def _drop(self) -> None:
        shell, self._shell = self._shell, None
        if shell is not None:
            shell.kill()
            shell.wait()
            for pipe in (shell.stdin, shell.stdout, self._errors):
                with suppress(OSError):
                    if pipe is not None:
                        pipe.close()

    # ---- what is there

    def shown(self, path: str) -> str:
        return self.place + re.sub(r"%(?=[0-9A-Fa-f]{2})", "%25", path)

    def url(self, path: str) -> str:
        return self.shown(path)

    def entry(self, path: str) -> Entry | None:
        # `-h`, because a link to nowhere is there, too.
        word = _word(path)
        out = self._told(
            f"if [ -e {word} ] || [ -h {word} ]; then find {word} -maxdepth 0 -printf '{_FACTS}%Y\\0'; fi", about=path
        )
        if not out:
            return None
        kind, size, stamp, at_end = (os.fsdecode(part) for part in out.split(b"\0")[:4])
        return Entry(at_end == "d", int(size), stamp, kind == "l")

    def listing(self, path: str) -> Listing:
        path = path.rstrip("/") or "/"
        found = self.entry(path)
        if found is None:
            raise InputError(f"The source '{self.shown(path)}' is not there.")
        listing = self._tree(path) if found.is_folder else Listing(path, {"": found}, ())
        if not listing.bytes:
            raise InputError(f"The source '{self.shown(path)}' is empty.", "It may still be being written.")
        return listing

    def _tree(self, root: str) -> Listing:
        out = self._told(f"find {_word(root)}/ -mindepth 1 -printf '{_FACTS}%P\\0'", about=root, source=True)
        parts = [os.fsdecode(part) for part in out.split(b"\0")[:-1]]
        files: dict[str, Entry] = {}
        folders: list[str] = []
        for kind, size, stamp, name in zip(*(iter(parts),) * 4, strict=True):
            if kind == "l":
                raise InputError(f"The source holds the link '{name}', and only files come from another host.")
            if name.startswith("/") or ".." in name.split("/") or kind not in "fd":
                raise InputError(f"The source holds '{name}', which is not a regular file.")
            if kind == "d":
                folders.append(name)
            else:
                files[name] = Entry(False, int(size), stamp)
        return Listing(root, dict(sorted(files.items())), tuple(sorted(folders)))

    def sums(self) -> Sequence[str]:
        return tuple(_PROGRAMS)

    def digest(self, path: str, kind: str, offset: int, length: int) -> str:
        """Of the whole file, because rsync moves whole files: one longer than `length` differs, as it should."""
        assert offset == 0
        word, more_s = _word(path), length / SLOWEST_SUM_BYTES_PER_S
        out = self._told(f"if [ -f {word} ]; then {_PROGRAMS[kind]} <{word}; fi", about=path, more_s=more_s)
        return out.split()[0].decode() if out else ""

    def whole(self, path: str, kind: str, size: int) -> str:
        return self.digest(path, kind, 0, size)

    def free(self, path: str) -> int | None:
        climb = f'd={_word(path)}; while [ ! -d "$d" ]; do d=$(dirname "$d"); done; df -P -k "$d" | tail -n 1'
        words = self._told(climb, about=path).split()
        return int(words[3]) * 1024 if len(words) > 3 and words[3].isdigit() else None

    def held(self, paths: Sequence[str]) -> int:
        known = [self._told(f"du -s -k {_word(path)} 2>/dev/null || :", about=path).split() for path in paths]
        return sum(int(words[0]) * 1024 for words in known if words and words[0].isdigit())

    # ---- changes

    def make_folder(self, path: str) -> None:
        self._told(f"mkdir -p {_word(path)}", about=path)

    def keep(self, path: str, folders: Iterable[str]) -> None:
        for each in (*([path] if path else []), *folders):
            self._told(f"sync {_word(each)}", about=each)

    def publish(self, part: str, final: str) -> None:
        folder = _word(os.path.dirname(final) or "/")
        try:
            with effect("file.publish"):
                self._told(f"mv -fT {_word(part)} {_word(final)}", f"sync {folder}", about=final, again=False)
        except (TransferDown, TransferRefused):
            # Renamed, and its answer lost?
            if self.entry(part) is None and self.entry(final) is not None:
                return
            raise

    def remove(self, path: str) -> None:
        self._told(f"rm -rf {_word(path)}", about=path)

    def again(self) -> SshEnd:
        return SshEnd(self._address, config=self._config, answer_s=self._answer_s)

    def close(self) -> None:
        self._closed = True
        shell = self._shell
        if shell is not None:
            shell.kill()  # whoever waits for its answer hears that it has ended
        with self._talk:
            self._drop()


def _word(path: str) -> str:
    """A path as a word of the shell; absolute, so no option."""
    if not path.startswith("/"):
        raise TransferError(f"'{path}' is not an absolute path.")
    return shlex.quote(path)
