"""Plain characters: what looks alike becomes alike, and nothing else changes."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from advgym.envs.text.candidates.glyphs import foreign, look_alikes, plain

ANY = st.text(st.characters(codec=None), max_size=40)


@pytest.mark.parametrize(
    ("written", "seen"),
    [
        ("𝓷ever", "never"),
        ("wɑs ɑⅼіvе", "was alive"),
        ("сοntrοl", "control"),
        ("ＡＢＣ　１２", "ABC 12"),
        ("na\u00efve cafe\u0301", "naive cafe"),
        ("fi\u200blm\u00ad", "film"),
        ("b\u0336a\u0336d\u0336", "bad"),
        ("“quoted” – dash…", '"quoted" - dash...'),
        ("flx\bat", "flat"),
        ("gone\b\b\b\b", ""),
        ("\b\bstart", "start"),
        ("a \u202eevitagen\u202c film", "a negative film"),
        ("a\tb\x0bc\u2003d", "a b c d"),
        ("٣ ways", "3 ways"),
        ("ᴀʙᴄ ɢʟʏᴘʜ", "abc glyph"),
    ],
)
def test_what_is_written_is_what_is_seen(written, seen):
    assert plain(written) == seen
    assert foreign(written) > 0 or "\b" in written


@given(ANY)
def test_it_is_idempotent_and_never_raises(text):
    once = plain(text)
    assert plain(once) == once
    assert not any(unicodedata.category(c) in ("Cc", "Cf", "Cs") for c in once if c != "\n")


@given(st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=60))
def test_plain_text_stays(text):
    assert plain(text) == text and foreign(text) == 0


def test_every_character_has_a_plain_form_that_is_plain():
    for code in range(0x30000):
        once = plain(chr(code))
        assert plain(once) == once, hex(code)


def test_the_table_maps_to_ascii_and_holds_no_ascii():
    for char, key in look_alikes().items():
        assert key.isascii() and len(key) == 1 and not char.isascii() and len(char) == 1
    assert {chr(c) for c in range(97, 123)} <= set(look_alikes().values())


def test_other_scripts_keep_their_words():
    """Marks of Hindi and letters without a look-alike stay."""
    for text in ("हिन्दी", "日本語", "한국어", "ภาษาไทย"):
        assert unicodedata.normalize("NFKC", plain(text)) == unicodedata.normalize("NFKC", text)
