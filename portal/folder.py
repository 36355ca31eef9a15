"""`var/`, where an embedded portal keeps everything, and the `.env` that quickstart makes there.

It alone writes that file, once, with a key of its own; it changes nothing in one that somebody else wrote,
and removes only what the portal made.
"""

import fcntl
import os
import secrets
import shutil
from contextlib import suppress
from pathlib import Path

from django.conf import settings

MARK = "# Made by `manage.py quickstart` for this machine; production has an environment of its own.\n"
LOCK = "quickstart.lock"
IN_USE = "in-use.lock"  # shared by every process that serves or works from the folder
_HELD = "QUICKSTART_LOCK_FD"  # the lock's descriptor, over an exec


class Refused(Exception):
    """Why the folder is left as it is, in one sentence."""


def env_file() -> Path:
    """The file that settings read, whether it is there or not."""
    return Path(os.environ.get("ENV_FILE") or settings.VAR_DIR / ".env")


def prepare(portal_url: str) -> dict[str, str]:
    """Make what is missing. Returns the environment with which the settings must be read again; empty if
    they are right as they are. A PORTAL_URL that somebody chose stays."""
    settings.VAR_DIR.mkdir(mode=0o700, exist_ok=True)
    file = env_file()
    ours = _read_ours(file)
    if ours is None and "SECRET_KEY" not in os.environ and not file.exists():
        ours = {"SECRET_KEY": secrets.token_urlsafe(50), "PORTAL_URL": portal_url}
        _write(file, ours)
        return {"PORTAL_URL": portal_url} | ours | _chosen_url(ours)
    if portal_url == settings.PORTAL_URL or _chosen_url(ours or {}):
        return {}
    if ours is not None:
        _write(file, ours | {"PORTAL_URL": portal_url})
    return {"PORTAL_URL": portal_url}


def url_is_chosen() -> bool:
    """Does PORTAL_URL come from the environment or somebody's own file, not from quickstart?"""
    return bool(_chosen_url(_read_ours(env_file()) or {}))


def hold() -> int:
    """Take the folder's lock for as long as this process and its children live; returns its descriptor.

    Raises Refused if another quickstart has it.
    """
    if held := os.environ.pop(_HELD, ""):
        os.set_inheritable(int(held), False)
        return int(held)
    settings.VAR_DIR.mkdir(mode=0o700, exist_ok=True)
    fd = os.open(settings.VAR_DIR / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        raise Refused(f"A quickstart is running already from {settings.VAR_DIR}.") from None
    return fd


def hand_on(fd: int) -> dict[str, str]:
    """Let the lock outlive an exec of this process; the environment says where it is."""
    os.set_inheritable(fd, True)
    return {_HELD: str(fd)}


def mark_in_use() -> int | None:
    """For as long as this process lives, `--reset` leaves the folder alone; None where there is no folder."""
    try:
        fd = os.open(settings.VAR_DIR / IN_USE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError:  # production has none, or one that this user may not write to
        return None
    fcntl.flock(fd, fcntl.LOCK_SH)
    return fd


def reset() -> None:
    """Remove the database, the journals, the static files and `.env`, if they are quickstart's and idle."""
    folder: Path = settings.VAR_DIR
    if not folder.exists():
        return
    ours = _read_ours(env_file())
    if folder.is_symlink() or env_file().parent != folder or ours is None:
        raise Refused(f"{folder} was not made by quickstart, so --reset leaves it alone.")
    database = Path(str(settings.DATABASES["default"]["NAME"]))
    journals = Path(settings.USAGE_JOURNAL_DIR)
    if database.parent != folder or journals.parent != folder:
        raise Refused(f"--reset removes {folder} only, and DATABASE_URL or USAGE_JOURNAL_DIR are elsewhere.")
    if any(_is_locked(path) for path in [folder / LOCK, folder / IN_USE, *journals.glob("*")]):
        raise Refused(f"Something is still serving from {folder}; stop it first.")
    for suffix in ("", "-wal", "-shm", "-journal"):
        database.with_name(database.name + suffix).unlink(missing_ok=True)
    for tree in (journals, Path(settings.STATIC_ROOT)):
        shutil.rmtree(tree, ignore_errors=not tree.exists())
    for file in (folder / LOCK, folder / IN_USE, env_file()):
        file.unlink(missing_ok=True)
    with suppress(OSError):  # something of somebody else's is in it
        folder.rmdir()
    # The settings have put the file's values into the environment; they went with the file.
    for name, value in ours.items():
        if os.environ.get(name) == value:
            del os.environ[name]


def _chosen_url(ours: dict[str, str]) -> dict[str, str]:
    """PORTAL_URL as somebody else has set it, if so."""
    url = os.environ.get("PORTAL_URL")
    return {} if url is None or url == ours.get("PORTAL_URL") else {"PORTAL_URL": url}


def _read_ours(file: Path) -> dict[str, str] | None:
    """The values of a `.env` that quickstart made; None for any other, or none."""
    try:
        text = file.read_text()
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return None
    if not text.startswith(MARK):
        return None
    pairs = (line.partition("=") for line in text.splitlines() if "=" in line and not line.startswith("#"))
    return {name.strip(): value.strip() for name, _, value in pairs}


def _write(file: Path, values: dict[str, str]) -> None:
    """Readable by its owner alone from the first byte, and there whole or not at all."""
    temporary = file.with_name(f"{file.name}.{secrets.token_hex(6)}.tmp")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "w") as opened:
        opened.write(MARK + "".join(f"{name}={value}\n" for name, value in values.items()))
        opened.flush()
        os.fsync(opened.fileno())
    temporary.replace(file)


def _is_locked(path: Path) -> bool:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False
