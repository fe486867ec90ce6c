"""Every registered encoder keeps the public contract."""

from __future__ import annotations

import pytest

from peav import registry
from peav.testing import check_encoder
from tests.helpers import SMALL_ENCODERS


@pytest.mark.parametrize("name", list(registry.encoders))
def test_contract(name: str) -> None:
    check_encoder(SMALL_ENCODERS[name])
