"""`peav convert`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from peav.cli.names import Names, names_of


def convert(
    source: str,
    out: Path,
    *,
    to: Literal["peav", "meta", "transformers"] = "peav",
    revision: str | None = None,
    card: Path | None = None,
    license: str | None = None,
    base_model: str | None = None,
    datasets: Names | None = None,
    name: str | None = None,
    push_to_hub: str | None = None,
    private: bool = True,
    trust: bool = False,
) -> None:
    """Write a model in another format; with a card for the hub, and to the hub.

    Args:
        source: a folder in Meta's format, transformers' or peav's; a .ckpt of `peav fit`; or a repository of the hub.
        out: folder to write.
        to: `peav`; `meta`, which Meta's code reads; or `transformers`.
        revision: of the repository; `perception_models` of the released ones is Meta's format.
        card: evaluation.json of `peav evaluate` of this model: README.md is written with licence, base model, data, recipe and results.
        license: for the card, the hub's identifier of the licence, such as `apache-2.0`; the card needs it.
        base_model: for the card, the repository that the model was trained from; of a .ckpt what its run says.
        datasets: for the card, what it was trained on, ids of the hub or names; of a .ckpt what its run says.
        name: for the card, what the model is called; the repository or the folder by default.
        push_to_hub: OWNER/NAME of a repository of the hub to upload the folder to; the token is that of `hf auth login` or HF_TOKEN.
        private: whether a repository that is made there is private.
        trust: let the model name classes by their dotted path, which are then imported, and run.
    """
    from peav.model import PEAV

    if card is not None and license is None:
        raise ValueError("--card needs --license, the hub's identifier of the licence, such as apache-2.0")
    if card is None and (license, base_model, datasets, name) != (None,) * 4:
        raise ValueError("--license, --base_model, --datasets and --name are for --card RESULTS")
    if card is not None and not card.is_file():
        raise FileNotFoundError(f"there is no file {card}: --card names the evaluation.json of `peav evaluate`")
    model = PEAV.from_pretrained(source, revision, trust)
    model.save_pretrained(out, to)
    print(f"wrote {out}: {', '.join(model.embedding_names)}; {sum(p.numel() for p in model.parameters()):,} parameters")
    if model.missing_pairs:
        print(f"no scale and bias are known for {', '.join(' x '.join(pair) for pair in model.missing_pairs)}")
    if card is not None and license is not None:
        from peav.cli.card import CardOptions, write_card

        used = None if datasets is None else names_of(datasets)
        options = CardOptions(card, license, base_model, used, name or push_to_hub)
        print(f"wrote {write_card(options, source, model, out, to, trust)}")
    if push_to_hub is not None:
        from peav.cli.card import push

        print(f"uploaded to {push(out, push_to_hub, private)}")
