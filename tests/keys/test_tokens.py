"""Key material: what is minted parses, and nothing else does."""

import hashlib
import random
import string
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keys import tokens

# A secret that nothing will ever accept as live; written out, so that the format can never drift.
GOLDEN = "lk_live_0123456789ABCDEFGHIJKLMNOPQRSTUV00JqhR"

prefixes = st.from_regex(r"[a-z][a-z0-9]{0,15}", fullmatch=True)
environments = st.sampled_from(tokens.ENVIRONMENTS)


@given(prefixes, environments)
def test_what_is_minted_parses_again(prefix: str, environment: str) -> None:
    minted = tokens.mint(prefix, environment)
    parsed = tokens.parse(minted.plaintext)
    assert parsed == tokens.Parsed(prefix, environment, minted.hint)
    assert minted.prefix == prefix
    assert minted.plaintext[-10:-6] == minted.hint


def test_the_format_is_the_contracts() -> None:
    plaintext = tokens.mint("lk", "live").plaintext
    head, environment, tail = plaintext.split("_")
    assert (head, environment, len(tail)) == ("lk", "live", 38)
    assert set(tail) <= set(string.digits + string.ascii_letters)
    number = 0
    for character in tail[32:]:
        number = number * 62 + tokens.ALPHABET.index(character)
    assert number == zlib.crc32(plaintext[:-6].encode())


def test_a_secret_made_by_an_older_version_parses_for_ever() -> None:
    assert tokens.parse(GOLDEN) == tokens.Parsed("lk", "live", "STUV")


def test_the_digest_is_the_sha256_of_the_whole_secret() -> None:
    minted = tokens.mint("lk", "test")
    assert minted.digest == hashlib.sha256(minted.plaintext.encode()).digest()
    assert tokens.digest(minted.plaintext) == minted.digest


def test_ten_thousand_secrets_are_all_different() -> None:
    minted = [tokens.mint("lk", "live") for _ in range(10_000)]
    assert len({each.digest for each in minted}) == 10_000
    assert len({each.plaintext[8:40] for each in minted}) == 10_000


def test_every_character_of_the_alphabet_is_used_about_equally() -> None:
    text = tokens.random_base62(62_000)
    counts = [text.count(character) for character in tokens.ALPHABET]
    # 1,000 expected, standard deviation 31.4: eight of them, either way.
    assert 750 < min(counts) <= max(counts) < 1250


def test_every_change_of_one_character_is_refused() -> None:
    for place, original in enumerate(GOLDEN):
        for other in tokens.ALPHABET + "_-. \n\0é":
            if other != original:
                assert tokens.parse(GOLDEN[:place] + other + GOLDEN[place + 1 :]) is None


def test_every_missing_doubled_or_swapped_character_is_refused() -> None:
    for place in range(len(GOLDEN)):
        assert tokens.parse(GOLDEN[:place] + GOLDEN[place + 1 :]) is None
        assert tokens.parse(GOLDEN[:place] + GOLDEN[place] + GOLDEN[place:]) is None
        pair = GOLDEN[place : place + 2]
        swapped = GOLDEN[:place] + pair[::-1] + GOLDEN[place + 2 :]
        assert swapped == GOLDEN or tokens.parse(swapped) is None


@pytest.mark.parametrize("by", [1, -1])
@given(prefixes, environments)
def test_a_checksum_off_by_one_is_refused(by: int, prefix: str, environment: str) -> None:
    body = tokens.mint(prefix, environment).plaintext[: -tokens.CHECKSUM_LENGTH]
    wrong = (zlib.crc32(body.encode()) + by) % 2**32
    assert tokens.parse(body + tokens.base62(wrong, tokens.CHECKSUM_LENGTH)) is None


@pytest.mark.parametrize("stranger", list("-_. \0é\n"))
def test_a_right_checksum_makes_no_key_of_a_strange_character(stranger: str) -> None:
    assert tokens.is_well_formed(GOLDEN)
    body = f"{GOLDEN[:20]}{stranger}{GOLDEN[21:-6]}"
    text = body + tokens.base62(zlib.crc32(body.encode()), tokens.CHECKSUM_LENGTH)
    assert not tokens.is_well_formed(text)


def test_a_flood_of_prefixes_changes_no_answer() -> None:
    for number in range(2 * tokens._MOST_HEADS):
        minted = tokens.mint(f"p{number}", "live").plaintext
        assert [tokens.is_well_formed(minted) for _ in range(2)] == [True] * 2
        assert not tokens.is_well_formed("x" + minted[1:])
    assert len(tokens._heads) <= tokens._MOST_HEADS


def test_a_checksum_beyond_crc_32_is_refused() -> None:
    body = GOLDEN[:-6]
    beyond = zlib.crc32(body.encode()) + 2**32
    assert beyond < 62**6
    assert tokens.parse(body + tokens.base62(beyond, 6)) is None


def test_a_hundred_thousand_random_strings_never_parse() -> None:
    chance = random.Random(20260615)
    alphabets = [
        tokens.ALPHABET,
        tokens.ALPHABET + "_",
        string.printable,
        "lk_livetest0123456789",
        "".join(map(chr, range(256))),
    ]
    for number in range(100_000):
        alphabet = alphabets[number % len(alphabets)]
        tail = "".join(chance.choices(alphabet, k=38 if number % 3 else chance.randrange(80)))
        text = tail if number % 2 else f"lk_live_{tail}"
        assert tokens.parse(text) is None, text


@given(st.text(alphabet=st.characters(), max_size=600))
def test_no_text_at_all_makes_parse_or_digest_fail(text: str) -> None:
    assert tokens.parse(text) is None
    assert len(tokens.digest(text)) == 32


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\0",
        GOLDEN + "\0",
        "\0" + GOLDEN,
        GOLDEN[:20] + "\0" + GOLDEN[21:],
        GOLDEN + "\n",
        " " + GOLDEN,
        GOLDEN + " ",
        GOLDEN.upper(),
        GOLDEN.replace("live", "prod"),
        GOLDEN.replace("lk", "LK"),
        GOLDEN.replace("_", "-"),
        GOLDEN.replace("0", "\N{FULLWIDTH DIGIT ZERO}"),
        GOLDEN.replace("l", "\N{CYRILLIC SMALL LETTER PALOCHKA}"),
        GOLDEN[:20] + "\ud800" + GOLDEN[21:],
        "\udcff" * 46,
        GOLDEN * 2,
        "a" * 2**20,
        "lk_live_" + "0" * 2**20,
        GOLDEN + "0" * 2**20,
        "lk_" * 2**18,
    ],
    ids=lambda text: ascii(text[:24]) + f"…{len(text)}",
)
def test_junk_is_refused(text: str) -> None:
    assert tokens.parse(text) is None
    assert len(tokens.digest(text)) == 32


def test_the_plaintext_is_in_no_repr() -> None:
    minted = tokens.mint("lk", "live")
    parsed = tokens.parse(minted.plaintext)
    for text in (repr(minted), str(minted), f"{minted}", repr(parsed)):
        assert minted.plaintext not in text
        assert minted.plaintext[8:36] not in text


@pytest.mark.parametrize("environment", ["", "prod", "LIVE", "live_", "live\n"])
def test_an_unknown_environment_is_not_minted(environment: str) -> None:
    with pytest.raises(ValueError, match="environment"):
        tokens.mint("lk", environment)


@pytest.mark.parametrize("prefix", ["", "1k", "LK", "l_k", "l-k", "lk ", "lk\n", "é", "a" * 17])
def test_a_prefix_that_could_not_be_parsed_is_not_minted(prefix: str) -> None:
    assert not tokens.is_prefix(prefix)
    with pytest.raises(ValueError, match="prefix"):
        tokens.mint(prefix, "live")


@given(st.integers(0, 2**32 - 1))
def test_six_base62_characters_hold_every_crc(number: int) -> None:
    text = tokens.base62(number, 6)
    back = 0
    for character in text:
        back = back * 62 + tokens.ALPHABET.index(character)
    assert (len(text), back) == (6, number)


def test_public_ids_name_their_kind_and_never_repeat() -> None:
    ids = {tokens.new_id("key") for _ in range(10_000)}
    assert len(ids) == 10_000
    assert all(each.startswith("key_") and len(each) == 20 for each in ids)
