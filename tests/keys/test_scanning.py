"""Finding keys in files, folders and git histories, and the rules for others' scanners."""

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from keys import lifecycle, tokens
from keys.models import Organization
from keys.prefixes import FORMATS
from keys.scanning import files, git, scan
from keys.scanning.files import Part, scan_parts
from tests import builders
from tests.keys.test_commands import Ran

KEY = tokens.mint("lk", "live").plaintext
OTHER = tokens.mint("acme", "test").plaintext
PREFIXES = (b"lk", b"acme")


def found(*paths: Path, **options: bool) -> list[tuple[str, int, str]]:
    """(place, line, secret) of everything under these paths."""
    results = scan([str(path) for path in paths], PREFIXES, processes=1, **options)
    return [(hit.place, hit.line, hit.secret) for result in results for hit in result.hits]


def run_git(folder: Path, *arguments: str) -> None:
    identity = ["-c", "user.name=Ann", "-c", "user.email=ann@example.com"]
    subprocess.run(["git", "-C", folder, *identity, *arguments], check=True, capture_output=True)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository that had a key in a file and took it out again."""
    folder = tmp_path / "repository"
    folder.mkdir()
    run_git(folder, "init", "-q", "-b", "main")
    (folder / "settings.env").write_text(f"A=1\nKEY={KEY}\n")
    run_git(folder, "add", ".")
    run_git(folder, "commit", "-q", "-m", "Add settings")
    (folder / "settings.env").write_text("A=1\n")
    run_git(folder, "commit", "-q", "-a", "-m", "Take the key out")
    return folder


# --- what counts as a key --------------------------------------------------------------------------


def test_a_key_is_found_whatever_stands_around_it(tmp_path: Path) -> None:
    befores = ["", "=", '"', "\\n", "%3D", "x", "lk_live_", "_", "\x00", "é"]
    afters = ["", '"', "\\n", "%0A", "_", "x", "\x00", "é"]
    lines = [f"two {before}{KEY}{after} three" for before in befores for after in afters]
    file = tmp_path / "file"
    file.write_text("\n".join([*lines, OTHER]))
    expected = [(str(file), number, KEY) for number in range(1, len(lines) + 1)]
    assert found(file) == [*expected, (str(file), len(lines) + 1, OTHER)]


def test_what_has_a_wrong_checksum_or_a_strange_prefix_is_no_key(tmp_path: Path) -> None:
    wrong = KEY[:-1] + ("a" if KEY[-1] != "a" else "b")
    strange = tokens.mint("other", "live").plaintext
    (tmp_path / "file").write_text(f"{wrong}\n{strange}\n{KEY[:-1]}\nlk_live_{'0' * 38}\n")
    assert found(tmp_path) == []


@given(
    st.lists(st.sampled_from([b"\n", b"lk_live_", b"_test_", b"x" * 40, b"\0", KEY.encode()]), max_size=40)
)
def test_the_finder_agrees_with_a_look_at_every_place(pieces: list[bytes]) -> None:
    content = b"".join(pieces)
    every = [at for at in range(len(content)) if content.startswith(KEY.encode(), at)]
    assert [at for at, _ in tokens.find(content, [b"lk"])] == every


# --- files -----------------------------------------------------------------------------------------


def test_a_key_across_the_border_of_two_blocks_is_found_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "BLOCK", 200)
    file = tmp_path / "file"
    for shift in range(-50, 3):
        file.write_bytes(b"\n" * (400 + shift) + KEY.encode() + b"\n" * 300 + KEY.encode())
        assert [line for _, line, _ in found(file)] == [401 + shift, 701 + shift]


def test_parts_of_a_file_find_together_what_is_in_it_once(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text(f"{KEY}\n" * 50)
    for size in (1, 7, 47, 48, 1000):
        parts = [Part(str(file), start, start + size) for start in range(0, 50 * (len(KEY) + 1), size)]
        assert [hit.line for hit in scan_parts(parts, PREFIXES).hits] == list(range(1, 51))


def test_utf_16_is_read(tmp_path: Path) -> None:
    (tmp_path / "little").write_bytes(b"\xff\xfe" + f"one\n{KEY}".encode("utf-16-le"))
    (tmp_path / "big").write_bytes(b"\xfe\xff" + f"one\n{KEY}".encode("utf-16-be"))
    assert [(line, secret) for _, line, secret in found(tmp_path)] == [(2, KEY), (2, KEY)]


def test_links_pipes_and_unreadable_files_are_told_and_not_read(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (tmp_path / "outside").write_text(KEY)
    (folder / "link").symlink_to(tmp_path / "outside")
    (folder / "round").symlink_to(folder)
    os.mkfifo(folder / "pipe")
    skipped = {Path(each.path).name for result in scan([str(folder)], PREFIXES) for each in result.skipped}
    assert skipped == {"link", "round", "pipe"}
    assert found(folder) == []
    assert [secret for _, _, secret in found(folder / "link")] == [KEY]  # named, it is followed


def test_a_file_that_cannot_be_opened_is_told(tmp_path: Path) -> None:
    gone = scan_parts([Part(str(tmp_path / "gone")), Part(str(tmp_path))], PREFIXES)
    assert [why for _, why in gone.skipped] == ["no such file or directory", "not a file"]


def test_several_processes_find_the_same(tmp_path: Path, repository: Path) -> None:
    for number in range(1100):
        (tmp_path / f"{number}").write_text(KEY if number % 100 == 0 else "")
    alone = scan([str(tmp_path)], PREFIXES, processes=1)
    spread = scan([str(tmp_path)], PREFIXES, processes=2)
    both = [sorted((h.place, h.line) for result in each for h in result.hits) for each in (alone, spread)]
    assert both[0] == both[1]
    assert len(both[0]) == 12


# --- git -------------------------------------------------------------------------------------------


def test_what_was_taken_out_of_a_repository_is_found_in_its_history(repository: Path) -> None:
    (place, line, secret), *more = found(repository)
    assert re.fullmatch(rf"{repository}/settings\.env in history \([0-9a-f]{{8}}\)", place)
    assert (line, secret, more) == (2, KEY, [])
    assert found(repository, history=False) == []


def test_messages_and_what_no_branch_leads_to_are_history_too(repository: Path) -> None:
    run_git(repository, "commit", "-q", "--allow-empty", "-m", f"Use {OTHER}")
    run_git(repository, "reset", "-q", "--hard", "HEAD~1")
    run_git(repository, "reflog", "expire", "--expire=now", "--all")
    assert [secret for place, _, secret in found(repository) if "commit in history" in place] == [OTHER]


def test_a_bare_repository_and_a_second_work_tree_are_read_once_each(
    repository: Path, tmp_path: Path
) -> None:
    run_git(repository, "worktree", "add", "-q", str(tmp_path / "second"))
    run_git(tmp_path, "clone", "-q", "--bare", str(repository), "bare.git")
    places = [place.partition(" ")[0] for place, _, _ in found(tmp_path)]
    assert len(places) == 2
    assert any(place.endswith("bare.git/settings.env") for place in places)


def test_a_repository_that_git_cannot_read_is_told(tmp_path: Path) -> None:
    (tmp_path / ".git").write_text("gitdir: nowhere\n")
    (result,) = [result for result in scan([str(tmp_path)], PREFIXES) if result.skipped]
    assert result.skipped[0].path == str(tmp_path)
    assert result.skipped[0].why.startswith("git: ")


def test_no_program_that_a_repository_names_is_run(repository: Path, tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
    program.chmod(0o700)
    for name in ("core.fsmonitor", "core.pager", "core.sshCommand", "diff.external", "gpg.program"):
        run_git(repository, "config", name, str(program))
    run_git(repository, "config", "log.showSignature", "true")
    assert len(found(repository)) == 1
    assert not (tmp_path / "ran").exists()


def test_an_object_that_is_too_large_is_told(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(git, "LARGEST", 10)
    results = list(scan([str(repository)], PREFIXES, processes=1))
    assert not [hit for result in results for hit in result.hits]
    assert any("larger" in each.why for result in results for each in result.skipped)


# --- the command -----------------------------------------------------------------------------------


@pytest.fixture
def acme(db: None) -> Organization:
    return builders.organization("acme")


def test_the_command_names_the_key_and_never_shows_it(acme: Organization, tmp_path: Path) -> None:
    issued = builders.key(acme)
    secret = issued.plaintext
    (tmp_path / f"{secret}.env").write_text(f"\nKEY={secret}\nX={KEY}\n")

    ran = Ran("scan_secrets", str(tmp_path))

    name = f"lk_live_…{issued.secret.hint}"
    assert ran.status == 1
    first, second = ran.out.splitlines()
    assert first.endswith(f'.env:2: {name} {issued.key.public_id} "Backend" of acme, active')
    assert second.endswith("well formed, but no key of this portal")
    assert "Found 2 keys in 2 places" in ran.err
    assert tokens.redact(ran.out + ran.err) == ran.out + ran.err


def test_only_working_keys_can_be_asked_for(acme: Organization, tmp_path: Path) -> None:
    works, revoked = builders.key(acme), builders.key(acme)
    lifecycle.revoke_key(lifecycle.command_actor(), revoked.key, now=builders.NOW)
    (tmp_path / "file").write_text(f"{works.plaintext} {revoked.plaintext} {KEY}")
    ran = Ran("scan_secrets", str(tmp_path), "--working", "--json")
    assert [each["key"] for each in json.loads(ran.out)["found"]] == [works.key.public_id]


def test_keys_under_an_earlier_prefix_are_found(acme: Organization, tmp_path: Path, settings: object) -> None:
    (tmp_path / "file").write_text(builders.key(acme).plaintext)
    settings.KEY_PREFIX = "new"  # type: ignore[attr-defined]  # pytest-django's fixture
    assert Ran("scan_secrets", str(tmp_path)).status == 1
    assert Ran("secret_patterns").out == "(?:lk|new)_(?:live|test)_[0-9A-Za-z]{38}\n"


def test_nothing_found_is_zero_and_something_unread_is_two(acme: Organization, tmp_path: Path) -> None:
    clean = Ran("scan_secrets", str(tmp_path))
    assert (clean.status, clean.out) == (0, "")
    os.mkfifo(tmp_path / "pipe")
    unread = Ran("scan_secrets", str(tmp_path))
    assert (unread.status, unread.out) == (2, "")
    assert "not a file" in unread.err


@pytest.mark.parametrize("argument", ["/no/such/place", "a\0b", "\udcff", ""])
def test_a_path_that_is_not_there_is_a_bad_argument(db: None, argument: str) -> None:
    assert Ran("scan_secrets", argument).status == 2


def test_a_path_is_printed_without_control_characters(acme: Organization, tmp_path: Path) -> None:
    (tmp_path / "a\n\x1b[31m\udcff").write_text(KEY)
    ran = Ran("scan_secrets", str(tmp_path))
    assert "a\\n\\x1b[31m\\xff:1: " in ran.out


# --- rules for others' scanners --------------------------------------------------------------------


def pattern_of(format: str) -> re.Pattern[str]:
    text = FORMATS[format](["lk", "acme"], "Maps \"&' of Acme")
    match format:
        case "gitleaks":
            (rule,) = tomllib.loads(text)["rules"]
            assert rule["keywords"] == ["acme_live_", "acme_test_", "lk_live_", "lk_test_"]
            return re.compile(rule["regex"])
        case "trufflehog":
            (detector,) = yaml.safe_load(text)["detectors"]
            return re.compile(detector["regex"]["key"])
        case "detect-secrets":
            (pattern,) = re.findall(r'compile\(r"(.*)"\)', text)
            return re.compile(pattern)
    return re.compile(text.rstrip("\n"))


@pytest.mark.parametrize("format", FORMATS)
def test_every_format_holds_a_rule_that_finds_each_key(format: str) -> None:
    pattern = pattern_of(format)
    for secret in (KEY, OTHER):
        match = pattern.search(f'key = "{secret}"')
        assert match is not None
        assert match[0] == secret
    assert not pattern.search(KEY[:-1])


def test_detect_secrets_itself_finds_only_well_formed_keys_by_the_plugin(tmp_path: Path) -> None:
    plugin = tmp_path / "plugin.py"
    plugin.write_text(FORMATS["detect-secrets"](["lk"], "Maps \"&' of Acme"))
    code = tmp_path / "code.py"
    code.write_text(f'one = "{KEY}"\ntwo = "lk_live_{"0" * 38}"\n')
    ran = subprocess.run(
        [sys.executable, "-m", "detect_secrets", "scan", "-p", str(plugin), str(code)],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
    )
    (found_there,) = json.loads(ran.stdout)["results"].values()
    ours = [each["line_number"] for each in found_there if each["type"] == "Maps \"&' of Acme API key"]
    assert ours == [1]
