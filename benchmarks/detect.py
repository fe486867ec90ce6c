"""Sounds found by name in long audio: peav's `detect` beside transformers' PeAudioFrameLevelModel, the same weights and windows.

    python benchmarks/detect.py                  # ten minutes of audio, PE-A-Frame small's architecture, random weights
    python benchmarks/detect.py --seconds 60     # a quick look

Each runs in a process of its own, on as many threads. Printed are seconds by the clock and of the CPU (on a machine that others use these
say more), the real-time factor (CPU seconds for a second of audio), where the time goes, the most memory that each process held beyond
what it held with its weights, and the largest difference of the probabilities. The waveform is read from a file, by ours window by window;
the peer gets each window as an array. Texts are embedded once by both.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
import wave
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jsonargparse import auto_cli

RATE, WINDOW, OVERLAP, STEP = 48000, 30.0, 5.0, 0.04
TEXTS = ["a bell", "the red house", "rings", "a house"]


def make(folder: Path, seconds: float) -> None:
    """Writes the model in transformers' format and a WAV of noise that comes and goes."""
    from dataclasses import replace

    from peav.checkpoints.presets import preset
    from peav.model import PEAV
    from tests.helpers import small_tokenizer

    torch.manual_seed(0)
    spec = preset("pe-a-frame-small")
    encoders = {name: dict(config) for name, config in spec.encoders.items()}
    tokenizer = small_tokenizer()
    text = encoders["text"]["init_args"]
    options = {**text["options"], "vocab_size": len(json.loads(tokenizer)["model"]["vocab"]), "pad_token_id": 0}
    encoders["text"] = {**encoders["text"], "init_args": {**text, "options": options, "tokenizer": tokenizer}}
    model = PEAV.from_spec(replace(spec, encoders=encoders)).eval()
    model.set_score(("audio", "text_event"), torch.tensor([1.0]), torch.tensor([-1.0]))
    model.save_pretrained(folder / "model", "transformers")
    generator = np.random.default_rng(0)
    with wave.open(str(folder / "sound.wav"), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        left = round(seconds * RATE)
        while left:
            some = min(left, 10 * RATE)
            loud = 0.05 + 0.2 * np.sin(np.arange(some) / RATE * 2.1) ** 2
            file.writeframes((generator.standard_normal(some) * loud * 8000).astype("<i2").tobytes())
            left -= some


class Watch:
    """CPU seconds that modules take, by name."""

    def __init__(self) -> None:
        self.spent: dict[str, float] = {}

    def add(self, name: str, module: Any) -> None:
        """Counts what a module takes under a name."""
        begun: list[float] = []
        module.register_forward_pre_hook(lambda *_: begun.append(time.process_time()))

        def after(*_: Any) -> None:
            self.spent[name] = self.spent.get(name, 0.0) + time.process_time() - begun.pop()

        module.register_forward_hook(after)


def run_ours(folder: Path, watch: Watch) -> Callable[[], np.ndarray]:
    """Returns what gives the probabilities (K, T) of the file."""
    from peav.inputs import Detector, detect_items, detection_rules, read_items
    from peav.model import PEAV

    model = PEAV.from_pretrained(folder / "model")
    audio: Any = model.encoders["audio"]
    watch.add("DAC-VAE", audio.frontend)
    watch.add("transformer", audio.transformer)
    watch.add("text", model.encoders["text"])

    def run() -> np.ndarray:
        rules = detection_rules(model, TEXTS, window_seconds=WINDOW, overlap_seconds=OVERLAP)
        detector = Detector(model, TEXTS, rules)
        np.save(folder / "texts.npy", detector.text_embeddings.numpy())
        planned = [detector.plan(0, read_items(str(folder / "sound.wav"), None)[0])]
        parts: list[np.ndarray] = []
        loaded = (request.load() for request in planned[0])
        for result in detect_items(detector, planned, loaded, WINDOW, lambda _, p, step: parts.append(p.numpy())):
            if isinstance(result, str):
                raise SystemExit(result)
        return np.concatenate(parts, 1)

    return run


def run_theirs(folder: Path, watch: Watch) -> Callable[[], np.ndarray]:
    """Likewise; its text head reads another layer than Meta's, so that the probabilities are those of our texts' embeddings."""
    from transformers import PeAudioFrameLevelModel

    from peav.inputs.windows import plan_windows, stitch_windows

    load: Any = PeAudioFrameLevelModel.from_pretrained
    model = load(folder / "model", attn_implementation="sdpa").eval()
    dac = model.audio_encoder.embedder.dac_encoder
    watch.add("DAC-VAE", dac)
    watch.add("embedder", model.audio_encoder.embedder)
    watch.add("encoder", model.audio_encoder)
    watch.add("text", model.text_model)
    texts = torch.from_numpy(np.load(folder / "texts.npy"))

    def run() -> np.ndarray:
        with torch.inference_mode(), wave.open(str(folder / "sound.wav")) as file:
            model.text_model(input_ids=torch.full((len(TEXTS), 6), 7))
            total = file.getnframes() / RATE
            windows = plan_windows(total, WINDOW, OVERLAP, STEP)
            frames = []
            for window in windows:
                file.setpos(round(window.start * RATE))
                data = np.frombuffer(file.readframes(round(window.seconds * RATE)), "<i2")
                samples = torch.from_numpy(data.astype(np.float32) / 32768)
                samples = samples[: len(samples) // 1920 * 1920]
                frames.append(model.get_audio_embeds(samples[None, None])[0])
            joined = stitch_windows(frames, [window.start for window in windows], [STEP] * len(windows))
            scale, bias = model.text_audio_logit_scale, model.text_audio_logit_bias
            return ((joined @ texts.T) * scale + bias).sigmoid().T.numpy()

    return run


def child(part: str, folder: Path, threads: int) -> None:
    """Runs one of the two, and writes what it took."""
    torch.set_num_threads(threads)
    watch = Watch()
    run = {"ours": run_ours, "theirs": run_theirs}[part](folder, watch)
    held = resident()
    begun, work = time.perf_counter(), time.process_time()
    probabilities = run()
    found: dict[str, Any] = {"wall": time.perf_counter() - begun, "cpu": time.process_time() - work}
    found["peak"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000 - held
    spent = watch.spent
    if part == "theirs":
        spent = {
            "DAC-VAE": spent["DAC-VAE"],
            "transformer": spent["encoder"] - spent["embedder"],
            "text": spent["text"],
        }
    found["parts"] = spent
    np.save(folder / f"{part}.npy", probabilities)
    (folder / f"{part}.json").write_text(json.dumps(found))


def resident() -> float:
    """Megabytes that this process holds; the peak so far is forgotten where Linux lets us."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1000
    return 0.0


def main(
    seconds: float = 600.0,
    threads: int = 2,
    part: Literal["all", "make", "ours", "theirs"] = "all",
    folder: Path | None = None,
    only_ours: bool = False,
) -> None:
    """Measures.

    Args:
        seconds: of audio.
        threads: of each process.
        part: which process this is; `all` starts the others.
        folder: where the model and the sound lie; a temporary one by default.
        only_ours: leave the peer out, for long sounds.
    """
    if part == "make" and folder is not None:
        make(folder, seconds)
        return
    if part != "all" and folder is not None:
        child(part, folder, threads)
        return
    with tempfile.TemporaryDirectory() as temporary:
        place = Path(temporary)
        names = ["make", "ours", *([] if only_ours else ["theirs"])]
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
        for name in names:
            words = [sys.executable, __file__, f"--part={name}", f"--folder={place}", f"--threads={threads}"]
            subprocess.run([*words, f"--seconds={seconds}"], check=True, env=environment)
        results = {name: json.loads((place / f"{name}.json").read_text()) for name in names[1:]}
        print(f"{seconds:g} s of audio, {threads} threads, load {os.getloadavg()[0]:.1f}")
        print(
            f"{'':14}{'clock':>9}{'CPU':>9}{'CPU/s':>8}{'DAC-VAE':>10}{'transf.':>9}{'text':>7}{'rest':>7}{'peak':>10}"
        )
        for name, found in results.items():
            parts = found["parts"]
            rest = found["cpu"] - sum(parts.values())
            print(
                f"{'peav' if name == 'ours' else 'transformers':14}{found['wall']:7.0f} s{found['cpu']:7.0f} s"
                f"{found['cpu'] / seconds:8.2f}{parts['DAC-VAE']:8.0f} s{parts['transformer']:7.0f} s{parts['text']:5.0f} s{rest:5.0f} s"
                f"{found['peak']:7.0f} MB"
            )
        if not only_ours:
            ours, theirs = np.load(place / "ours.npy"), np.load(place / "theirs.npy")
            shared = min(ours.shape[1], theirs.shape[1])
            error = float(np.abs(ours[:, :shared] - theirs[:, :shared]).max())
            wall, cpu = (results["theirs"][kind] / results["ours"][kind] for kind in ("wall", "cpu"))
            print(
                f"transformers / peav: {wall:.2f} by the clock, {cpu:.2f} of the CPU; probabilities differ by {error:.1e}"
            )


if __name__ == "__main__":
    auto_cli(main)
