"""Defaults do not move unnoticed; what is new is written down by `python -m tests.defaults`."""

import json

from tests.defaults import GOLDEN, defaults


def test_defaults_are_those_that_were_written_down() -> None:
    golden, found = json.loads(GOLDEN.read_text()), defaults()
    changed = [
        f"{name}.{key}: {value} was {golden[name][key]}"
        for name in golden.keys() & found.keys()
        for key, value in found[name].items()
        if golden[name].get(key, value) != value
    ]
    assert not changed
    known = sum(len(golden[name].keys() & found[name].keys()) for name in golden.keys() & found.keys())
    assert known > 0.8 * sum(map(len, golden.values()))
