"""PSDS over all thresholds of a large test set, beside sed_scores_eval where it is installed (`pip install 'peav[sed]'`).

    python benchmarks/psds.py                       # 17,000 clips x 400 labels, minutes
    python benchmarks/psds.py --clips 500 --theirs  # both, on what sed_scores_eval finishes

Scores are made when asked, 10 s of 25 frames a second: noise that is smoothed over 0.4 s, raised where events are. Making them is timed
apart.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Iterator, Sequence

import numpy as np

from peav.evaluation.detection import PSDS1, PSDS2, ScoredClip, psds

FRAMES, SECONDS = 250, 10.0
TIMES = np.linspace(0.0, SECONDS, FRAMES + 1)


class RandomClips(Sequence[ScoredClip]):
    """Clips that are computed from their number, so that no test set lies in memory."""

    def __init__(self, clips: int, labels: int, pool: int = 16) -> None:
        rng = np.random.default_rng(0)
        noise = rng.standard_normal((pool, FRAMES + 10, labels)).cumsum(1)
        self.pool = ((noise[:, 10:] - noise[:, :-10]) / np.sqrt(10)).astype(np.float32)
        self.clips, self.labels, self.spent = clips, labels, 0.0

    def __len__(self) -> int:
        return self.clips

    def __getitem__(self, index):  # type: ignore[no-untyped-def]
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(self.clips))]
        if not 0 <= index < self.clips:
            raise IndexError(index)
        begin = time.perf_counter()
        rng = np.random.default_rng([1, index])
        # The labels of one clip are those of another in another order, with small differences.
        scores = self.pool[index % len(self.pool)][:, rng.permutation(self.labels)]
        scores = scores + rng.standard_normal(self.labels, dtype=np.float32) * np.float32(0.3)
        events = []
        for label in rng.permutation(self.labels)[: rng.integers(0, 9)].tolist():
            onset, length = rng.uniform(0, SECONDS - 1.0), rng.uniform(0.2, 4.0)
            events.append((label, onset, min(onset + length, SECONDS)))
            scores[(TIMES[1:] > onset) & (TIMES[:-1] < onset + length), label] += 4.0
        self.spent += time.perf_counter() - begin
        return ScoredClip(scores, TIMES, events)

    def __iter__(self) -> Iterator[ScoredClip]:
        return (self[index] for index in range(self.clips))


def theirs(clips: RandomClips, settings) -> float:  # type: ignore[no-untyped-def]
    from sed_scores_eval import intersection_based
    from sed_scores_eval.base_modules.scores import create_score_dataframe

    names = [f"{k}" for k in range(clips.labels)]
    scores = {f"{a}": create_score_dataframe(clip.scores, clip.times, names) for a, clip in enumerate(clips)}
    truth = {f"{a}": [(on, off, names[k]) for k, on, off in clip.events] for a, clip in enumerate(clips)}
    begin = time.perf_counter()
    value, *_ = intersection_based.psds(
        scores,
        truth,
        {name: SECONDS for name in scores},
        dtc_threshold=settings.dtc,
        gtc_threshold=settings.gtc,
        cttc_threshold=settings.cttc,
        alpha_ct=settings.alpha_ct,
        alpha_st=settings.alpha_st,
        max_efpr=settings.e_max,
    )
    print(f"  sed_scores_eval {value:.6f} in {time.perf_counter() - begin:.1f} s")
    return float(value)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=17000)
    parser.add_argument("--labels", type=int, default=400)
    parser.add_argument("--theirs", action="store_true", help="run sed_scores_eval, too")
    args = parser.parse_args()
    for name, settings in (("PSDS1", PSDS1), ("PSDS2", PSDS2)):
        clips = RandomClips(args.clips, args.labels)
        begin, cpu = time.perf_counter(), time.process_time()
        value = psds(clips, settings).value
        wall, cpu = time.perf_counter() - begin, time.process_time() - cpu
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(
            f"{name} {value:.6f}: {args.clips} clips x {args.labels} labels in {wall:.1f} s ({cpu:.1f} s of one core), "
            f"of these {clips.spent:.1f} s to make the scores; peak memory {peak:.0f} MB",
            flush=True,
        )
        if args.theirs:
            theirs(clips, settings)


if __name__ == "__main__":
    main()
