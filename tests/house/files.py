"""The project's own files, as git has them: what is tracked and what is about to be."""

import subprocess
from functools import cache
from pathlib import Path

from django.conf import settings

ROOT: Path = settings.BASE_DIR
PACKAGES = ("portal", "usage", "keys")


@cache
def project_files() -> tuple[Path, ...]:
    """Every file that is not ignored, sorted, absolute."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    names = sorted(set(listed.stdout.decode().split("\0")) - {""})
    return tuple(ROOT / name for name in names if (ROOT / name).is_file())


def name(path: Path) -> str:
    """How a test calls a file: its path from the top."""
    return path.relative_to(ROOT).as_posix()


def python_files(*packages: str) -> list[Path]:
    """The Python of these packages, migrations left out."""
    return [
        path
        for path in project_files()
        if path.suffix == ".py" and name(path).split("/")[0] in packages and "migrations" not in path.parts
    ]


def templates() -> list[Path]:
    """Every template, wherever it lies."""
    return [
        path
        for path in project_files()
        if "templates" in path.relative_to(ROOT).parts and path.suffix in (".html", ".txt", ".svg", ".xml")
    ]
