"""The blind test: people choose between two captions of a clip, not knowing which is which (docs/engine.md).

`make` draws clips of which two sources have captions, and writes a page that hides where each comes from, and beside it the key; `score`
reads the answers of raters with the key.
"""
