"""Shards, on disk and in object stores: written chunk by chunk, read by row, each sample checked against its checksum."""
