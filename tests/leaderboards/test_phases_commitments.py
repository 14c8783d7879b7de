"""Commitments: what is drawn from a secret, and what it says before it is known."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from advgym.errors import AdvgymError
from advgym.leaderboards.rules import commitments

SECRET = bytes(range(32))
labels = st.lists(st.text(max_size=6) | st.integers(-(2**70), 2**70), max_size=4)


def test_a_commitment_is_the_hash_of_the_secret():
    secret = commitments.draw()
    assert len(secret) == 32 and secret != commitments.draw()
    assert commitments.commit(secret) == hashlib.sha256(secret).hexdigest()


@given(labels, labels)
def test_other_labels_other_seeds(one, two):
    a, b = commitments.derive(SECRET, *one), commitments.derive(SECRET, *two)
    assert 0 <= a < 2**63
    assert (a == b) == ([(type(x), x) for x in one] == [(type(x), x) for x in two])


def test_other_secrets_other_seeds():
    assert commitments.derive(SECRET, "a") != commitments.derive(SECRET[::-1], "a")
    assert commitments.derive(SECRET, "ab", "c") != commitments.derive(SECRET, "a", "bc")


def test_run_seeds_follow_from_secret_and_submission():
    seeds = commitments.run_seeds(SECRET, "ab" * 32, 5)
    assert seeds[:3] == commitments.run_seeds(SECRET, "ab" * 32, 3)
    assert len({*seeds, *commitments.run_seeds(SECRET, "cd" * 32, 5)}) == 10


@pytest.mark.parametrize("secret", [b"", bytes(31), bytes(33)])
def test_a_secret_has_its_size(secret):
    with pytest.raises(AdvgymError):
        commitments.commit(secret)
    with pytest.raises(AdvgymError):
        commitments.derive(secret, "x")


def test_public_secrets_follow_from_the_board():
    assert commitments.public_secret("a", "dev", "h") == commitments.public_secret("a", "dev", "h")
    assert commitments.public_secret("a", "dev", "h") != commitments.public_secret("a", "test", "h")
