"""A key is known by its fingerprint and shown by nothing."""

from __future__ import annotations

import pickle

import pytest

from atb.core.keys import ApiKey, account_identity

KEY = ApiKey("vmPUZE6mv9SD5VNHk4HlWFsO", "NhqPtmdSJYdKjVHjA7PZj4Mg")


def test_nothing_shows_it() -> None:
    for text in (repr(KEY), str(KEY), f"{KEY}", repr({"key": KEY}), repr([KEY])):
        assert KEY.id not in text and KEY.secret not in text
    with pytest.raises(TypeError, match="not written"):
        pickle.dumps(KEY)


def test_the_fingerprint_tells_keys_apart_and_not_secrets() -> None:
    assert KEY.fingerprint == ApiKey(KEY.id, "other").fingerprint
    assert KEY.fingerprint != ApiKey(KEY.id + "x", KEY.secret).fingerprint
    assert len(KEY.fingerprint) == 12
    assert account_identity("binance", "spot", "real", KEY.fingerprint) == f"binance:spot:real:{KEY.fingerprint}"


def test_a_text_that_repeats_it_is_masked() -> None:
    assert KEY.masked(f"bad key {KEY.id}, signed with {KEY.secret}") == "bad key ***, signed with ***"
    pem = ApiKey(
        "name", "-----BEGIN EC PRIVATE KEY-----\nMHcCAQEEIAa3IDzxs4H16b4AOResSOlF\n-----END EC PRIVATE KEY-----"
    )
    assert pem.masked("EC PRIVATE KEY MHcCAQEEIAa3IDzxs4H16b4AOResSOlF") == "EC PRIVATE KEY ***"
    assert ApiKey("", "").masked("nothing to hide") == "nothing to hide"
