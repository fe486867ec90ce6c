"""The command `peav`."""
