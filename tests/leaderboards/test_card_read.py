"""card.toml: what is read, what is refused and in which words."""

import json
import unicodedata

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from advgym.cli.app import main
from advgym.leaderboards.entries.card import CAPS, Card, check_folder, read_card
from advgym.leaderboards.rules.board import load
from advgym.leaderboards.rules.board_tables import Limits
from advgym.leaderboards.rules.reasons import Refused

GOOD = 'name = "mine"\ntrack = "attack"\nkind = "field"\nknowledge = "score"\n'


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "card.toml").write_text(GOOD)
    (tmp_path / "agent.py").write_text("def attack(env, *, seed=0):\n    raise SystemExit('the host ran it')\n")
    return tmp_path


def refused(call, *args) -> Refused:
    with pytest.raises(Refused) as caught:
        call(*args)
    return caught.value


def test_new_folders_are_submissions(tmp_path):
    for what, boards in (("agent", ("image", "grand")), ("defense", ("text", "graph"))):
        assert main(["new", what, str(tmp_path / what)]) == 0
        card = read_card(tmp_path / what)
        assert card.name == what and card.licence == "MIT"
        assert card.entry == f"{what}.py"
        for name in boards:
            check_folder(tmp_path / what, load(name), card)


def test_defaults(folder):
    (folder / "card.toml").write_text('name = "x"\ntrack = "defense"\n')
    assert read_card(folder).kinds == ("field", "edits")
    assert read_card(folder) == Card(name="x", track="defense")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "`name`"),
        ('name = "x"\n', "`track`"),
        (GOOD.replace('"attack"', '"atack"'), "track is 'atack'; allowed: attack, defense"),
        (GOOD.replace('"field"', '"fields"'), "kind is 'fields'"),
        (GOOD.replace('"field"', "[]"), "kind is []"),
        (GOOD.replace('"field"', '["field", "field"]'), "kind is"),
        (GOOD.replace('"score"', '"all"'), "knowledge is 'all'; allowed: transfer"),
        (GOOD + "proposals = 0", "proposals is from 1"),
        (GOOD + "proposals = true", "proposals"),
        (GOOD + "proposals = 1e3", "proposals"),
        (GOOD + f"proposals = 1{'0' * 5000}", "TOML"),
        (GOOD + "score = 1.0", "score"),
        (GOOD.replace('"mine"', '" "'), "name is empty"),
        (GOOD.replace('"mine"', '"a\\u202eb"'), "control and format characters"),
        (GOOD.replace('"mine"', '"a\\nb"'), "control and format characters"),
        (GOOD.replace('"mine"', f'"{"x" * 61}"'), "61 characters; at most 60"),
        (GOOD + f"authors = {['a'] * 51}", "51; at most 50"),
        (GOOD + "title = 7", "title"),
        ("name = ", "TOML"),
        ("x = " + "[" * 5000, "TOML"),
        (GOOD + "#" * (64 << 10), "longer than"),
    ],
)
def test_each_mistake_is_named(folder, text, words):
    (folder / "card.toml").write_text(text)
    error = refused(read_card, folder)
    assert error.code == "bad-card" and error.blame == "participant"
    assert words in error.text


def test_bytes_that_are_no_text(folder):
    (folder / "card.toml").write_bytes(b'name = "\xff"')
    assert refused(read_card, folder).code == "bad-card"
    (folder / "card.toml").unlink()
    assert "advgym new agent" in refused(read_card, folder).text
    (folder / "card.toml").symlink_to("/etc/passwd")
    assert refused(read_card, folder).code == "bad-card"


@given(field=st.sampled_from(sorted(CAPS)), text=st.text(max_size=80))
def test_what_is_shown_holds_no_control_character(tmp_path_factory, field, text):
    folder = tmp_path_factory.mktemp("card")
    card = {"name": "x", "track": "attack", field: text}
    lines = "".join(f"{key} = {json.dumps(value, ensure_ascii=False)}\n" for key, value in card.items())
    (folder / "card.toml").write_bytes(lines.encode("utf-8", "replace"))
    try:
        found = getattr(read_card(folder), field)
    except Refused as error:
        assert error.code == "bad-card"
        return
    assert found == text and len(found) <= CAPS[field]
    assert not any(unicodedata.category(c)[0] == "C" for c in found)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_card_or_refused(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("card")
    (folder / "card.toml").write_bytes(data)
    try:
        read_card(folder)
    except Refused as error:
        assert error.code == "bad-card"


def test_what_a_board_cannot_run(folder):
    image = load("image")
    card = read_card(folder)
    check_folder(folder, image, card)
    text = load("grand")  # scores alone
    (folder / "card.toml").write_text(GOOD.replace('"score"', '"white-box"'))
    assert refused(check_folder, folder, text, read_card(folder)).code == "too-much-knowledge"
    check_folder(folder, image, read_card(folder))  # one of its tasks gives gradients
    (folder / "card.toml").write_text(GOOD.replace('"attack"', '"defense"'))
    error = refused(check_folder, folder, image, read_card(folder))
    assert error.code == "wrong-track" and "wants defense.py" in error.text and "agent.py" in error.text
    (folder / "agent.py").unlink()
    assert refused(check_folder, folder, image, card).code == "no-entry-point"


def test_a_track_that_the_board_does_not_have(folder):
    image = msgspec.structs.replace(load("image"), tracks=["defense"])
    assert "has no attack track; it has defense" in refused(check_folder, folder, image, read_card(folder)).text


def test_sizes(folder):
    small = msgspec.structs.replace(load("image"), limits=Limits(size_mb=1))
    card = read_card(folder)
    with (folder / "weights.safetensors").open("wb") as file:
        file.truncate((1 << 20) + 1)
    assert refused(check_folder, folder, small, card).code == "too-large"
    check_folder(folder, load("image"), card)
    for i in range(200):
        (folder / f"f{i}").touch()
    assert refused(check_folder, folder, load("image"), card).code == "too-large"
