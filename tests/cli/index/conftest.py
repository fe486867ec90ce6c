"""The small models and the folder of media of `peav embed`'s tests."""

from tests.cli.embed.conftest import checkpoint, folder, framewise

__all__ = ["checkpoint", "folder", "framewise"]
