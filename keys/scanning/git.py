"""A repository's history: every object that git still has, whether a branch leads to it or not.

Objects are read through `git cat-file`, which runs no program that the repository's settings name, and
nothing is fetched. What was deleted from the files is still here, and so are messages of commits and tags.
"""

import os
import subprocess
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import NamedTuple

from keys.scanning.files import Hit, Result, Skipped, hits_in

_GIT = ["git", "-c", "core.fsmonitor=false", "--no-pager", "--no-optional-locks"]
_READ = (b"blob", b"commit", b"tag")  # a tree has names alone
# Larger ones are not held in memory as a whole.
LARGEST = 256 * 1024 * 1024


class Object(NamedTuple):
    """What git has under a hash; `kind` is blob, commit or tag."""

    name: str
    kind: str
    size: int


class Unreadable(Exception):
    """Git refuses this repository; `str()` is its sentence."""


def is_repository(path: str) -> bool:
    """Is this folder one, with files or bare?"""
    folder = Path(path)
    bare = all((folder / name).exists() for name in ("HEAD", "objects", "refs"))
    return bare or (folder / ".git").exists()


def common_folder(path: str) -> str:
    """Where its objects are: one for all work trees of a repository."""
    said = _output(path, "rev-parse", "--git-common-dir").rstrip(b"\n")
    return str(Path(path, os.fsdecode(said)).resolve())


def objects(path: str) -> Iterator[Object]:
    """Everything that git has there, but for trees."""
    arguments = ["cat-file", "--batch-all-objects", "--unordered"]
    arguments.append("--batch-check=%(objecttype) %(objectsize) %(objectname)")
    with subprocess.Popen(
        [*_GIT, "-C", path, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=_environment(),
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            kind, size, name = line.split()
            if kind in _READ:
                yield Object(name.decode(), kind.decode(), int(size))
    if process.returncode:
        raise Unreadable("git cannot list its objects")


def scan_objects(path: str, wanted: Collection[Object], prefixes: Collection[bytes]) -> Result:
    """The secrets in these objects; a hit's place is `<kind> <hash>`, which `name_places` makes readable."""
    result = Result(repository=path)
    with subprocess.Popen(
        [*_GIT, "-C", path, "cat-file", "--batch"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=_environment(),
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for each in wanted:
            place = f"{each.kind} {each.name}"
            if each.size > LARGEST:
                result.skipped.append(Skipped(f"{path}: {place}", f"larger than {LARGEST >> 20} MiB"))
                continue
            try:
                process.stdin.write(f"{each.name}\n".encode())
                process.stdin.flush()
            except BrokenPipeError:
                result.skipped.append(Skipped(f"{path}: {place}", "git ended"))
                break
            head = process.stdout.readline().split()
            if len(head) != 3:
                result.skipped.append(Skipped(f"{path}: {place}", "git cannot read it"))
                continue
            content = process.stdout.read(int(head[2]))
            process.stdout.read(1)  # a line end
            result.objects += 1
            result.size += len(content)
            result.hits += hits_in(content, place, prefixes)
        process.stdin.close()
    return result


def name_places(path: str, hits: Collection[Hit]) -> list[Hit]:
    """The hits with the paths that their blobs have, or once had: `repo/a/b.env in history (1a2b3c4d)`."""
    wanted = {hit.place.partition(" ")[2].encode() for hit in hits}
    paths: dict[str, str] = {}
    listing = _output(path, "rev-list", "--objects", "--all", "--reflog")
    for line in listing.splitlines():
        found, _, where = line.partition(b" ")
        if where and found in wanted:
            paths.setdefault(found.decode(), os.fsdecode(where))
    named = []
    for hit in hits:
        kind, _, name = hit.place.partition(" ")
        place = f"{path}/{paths[name]}" if name in paths else f"{path}: {kind}"
        named.append(Hit(f"{place} in history ({name[:8]})", hit.line, hit.secret, hit.binary))
    return named


def _output(path: str, *arguments: str) -> bytes:
    try:
        done = subprocess.run(
            [*_GIT, "-C", path, *arguments],
            capture_output=True,
            check=False,
            env=_environment(),
            stdin=subprocess.DEVNULL,
        )
    except FileNotFoundError:
        raise Unreadable("git is not installed, so its history was not read") from None
    if done.returncode:
        said = done.stderr.decode("utf-8", "replace").strip().partition("\n")[0].removeprefix("fatal: ")
        raise Unreadable(f"git: {said[:200]}")
    return done.stdout


def _environment() -> dict[str, str]:
    """Git's own, without those variables that would lead it elsewhere, and without the network."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR") if name in os.environ}
    return kept | {"GIT_NO_LAZY_FETCH": "1", "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"}
