"""`peav caption`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from peav.cli.names import Names, names_of

#: Entries of a column that `--dry_run` prints: a tagger lists dozens of phrases of which there is any sign.
SHOWN_ENTRIES = 12


def caption(
    data: Sequence[str],
    *,
    stages: Mapping[str, Any] | None = None,
    set: Sequence[str] = (),
    where: str = "",
    splits: Names = ("train",),
    work: Path | None = None,
    replace: bool = False,
    dry_run: bool = False,
    executor: Literal["inline", "process", "ray"] = "inline",
    workers: int = 2,
    gpus: float = 0.0,
    part_clips: int = 1000,
    batch_clips: int = 32,
    retry_failed: bool = True,
    max_failures: int = 100,
    calibration_clips: int = 200,
    probes: int = 8,
    unique_media: bool = True,
    max_copies: int = 0,
    max_opening_share: float = 0.5,
    blacklist: str = "",
    near_duplicates: bool = True,
    semantic: Path | None = None,
    semantic_eps: float = 0.01,
    semantic_keep: Literal["hard", "easy", "random"] = "hard",
    semantic_clusters: int = 0,
    semantic_missing: Literal["error", "stay"] = "error",
    samples: int = 12,
    stale_seconds: float = 120.0,
) -> None:
    """Write captions, transcripts, domains and events of prepared clips with a pipeline of models, and check them.

    The stages stand in a YAML, such as peav:engine/small. What they make is kept in DATA/engine: a run that was killed goes on where it
    was, several runs on one folder share the work, and a changed setting redoes its stage and those that read it. Captions go into the
    manifest as synthetic ones, with a line each in DATA/provenance; what people wrote is never changed, and synthetic captions that
    are there only with --replace. The report is DATA/engine/report.html (docs/engine.md).

    For example: peav caption my_data --config peav:engine/tagger --set tags.model=runs/mine/checkpoints/last.ckpt

    Args:
        data: folders that `peav prepare` wrote.
        stages: name to {class_path, init_args}, in their order; null leaves one out.
        set: STAGE.ARGUMENT=VALUE changes an argument of a stage, STAGE=CLASS puts another class in its place (then its arguments),
            STAGE=null leaves one out; give it as often as you like.
        where: which clips, such as "domain == 'speech' and duration < 10 and not has_video".
        splits: whose clips, such as `[train, validation]`.
        work: folder of the results; with several data, each has a folder of its name in it.
        replace: let synthetic captions that clips have, and what an earlier job wrote, give way.
        dry_run: show what each stage makes of ten clips, and write nothing into the manifest.
        executor: `inline`, in this process; `process`, in several; or `ray`, in actors of a cluster (RAY_ADDRESS, else this machine).
        workers: processes, or actors.
        gpus: that each actor of `ray` asks for, a part of one or several.
        part_clips: clips of a part, the unit that processes share and that is kept.
        batch_clips: clips that a stage is given at once.
        retry_failed: try clips again that failed in earlier runs.
        max_failures: stop when a stage fails for so many clips from the first on; 0 for never.
        calibration_clips: clips on which stages learn what low and high scores are.
        probes: clips with which each stage is tried on silence, black pictures and other clips' media; 0 for none.
        unique_media: leave out the captions of a clip whose media another clip has.
        max_copies: captions of a type that may say the same; 0 for any number.
        max_opening_share: stop before writing where more captions of a type begin with the same three words.
        blacklist: clips that get no caption, such as those of evaluation sets: a file of ids, a JSONL file of ids and fingerprints, or the
            work folder of a run over them with the stage Fingerprint.
        near_duplicates: leave out clips that are nearly an earlier one, where the stage Fingerprint is in the pipeline.
        semantic: vectors of the clips, by which semantic duplicates are left out (SemDeDup): the .npz of `peav embed` over their files, or
            the folder of `peav predict` over the clips.
        semantic_eps: cosine distance up to which a clip is a duplicate of one that stays.
        semantic_keep: which of them stays: the one farthest from the centroid of its cluster (`hard`), the nearest (`easy`), or any.
        semantic_clusters: of k-means; 0 for as many as fit the number of clips.
        semantic_missing: clips without a vector are an `error`, or they all `stay`.
        samples: clips on the report.
        stale_seconds: time without a sign of life after which a process on another machine counts as dead.
    """
    from peav.cli.clip_progress import clip_progress
    from peav.data.curation.clip_duplicates import SemanticOptions
    from peav.data.curation.semdedup import SemDedup
    from peav.data.manifests.records import SPLITS
    from peav.data.workers import ends_on_terminate
    from peav.engine.engine import caption as run_job
    from peav.engine.engine import try_out
    from peav.engine.execution import Execution
    from peav.engine.job import JobSpec
    from peav.engine.publish import PublishOptions
    from peav.suggest import suggest

    chosen = names_of(splits)
    for split in chosen:
        if split not in SPLITS:
            raise ValueError(f"there is no split {split!r}. {suggest(split, SPLITS)}")
    execution = Execution(executor, workers, gpus, stale_seconds)
    changed = with_changes(stages or {}, set)
    settings = SemDedup(semantic_eps, semantic_keep, semantic_clusters)
    if semantic is None and (given := _changed(settings, semantic_missing)):
        raise ValueError(f"--semantic_{given} says nothing without --semantic VECTORS")
    wanted = None if semantic is None else SemanticOptions(str(semantic), settings, semantic_missing)
    jobs = []
    for folder in data:
        place = "" if work is None else str(work if len(data) == 1 else work / Path(folder).resolve().name)
        spec = JobSpec(
            data=str(folder),
            stages=changed,
            work=place,
            splits=chosen,
            where=where,
            part_clips=part_clips,
            batch_clips=batch_clips,
            retry_failed=retry_failed,
            max_failures=max_failures,
            calibration_clips=calibration_clips,
        )
        jobs.append((folder, spec))
    _check_folders(data, chosen, work)
    fruitless: list[str] = []
    for folder, spec in jobs:
        if dry_run:
            _show(try_out(spec))
            continue
        options = PublishOptions(
            replace=replace,
            unique_media=unique_media,
            max_copies=max_copies,
            max_opening_share=max_opening_share,
            blacklist=blacklist,
            near_duplicates=near_duplicates,
            semantic=wanted,
        )
        with ends_on_terminate():
            done = run_job(
                spec,
                options,
                execution,
                probes=probes,
                samples=samples,
                progress=lambda total: clip_progress("caption", total),
            )
        _summary(done, folder)
        if done.nothing:
            fruitless.append(folder)
    if fruitless:
        raise RuntimeError(f"every clip failed at a stage, and nothing was written: {', '.join(fruitless)}")


def _check_folders(data: Sequence[str], splits: Sequence[str], work: Path | None) -> None:
    """Sees that every folder can be opened before the first is worked on, that none is given twice, and that each has its own work."""
    from peav.data.manifests.manifest import open_manifest

    given: dict[Path, str] = {}
    for folder in data:
        for split in splits:
            open_manifest(folder, split)
        place = Path(folder).resolve()
        if place in given:
            raise ValueError(f"{folder} is the same folder as {given[place]}: give each once")
        if work is not None and (other := next((one for one in given if one.name == place.name), None)):
            raise ValueError(
                f"{given[other]} and {folder} have the same name, by which their results would be kept in {work}: "
                "caption them one after the other, each with a --work of its own"
            )
        given[place] = folder


def _changed(settings: Any, missing: str) -> str:
    """Returns the first option of `--semantic` that is not as it is by default, or ""."""
    from peav.data.curation.semdedup import SemDedup

    usual = SemDedup()
    names = [name for name in ("eps", "keep", "clusters") if getattr(settings, name) != getattr(usual, name)]
    return (names + ["missing"] * (missing != "error") + [""])[0]


def with_changes(stages: Mapping[str, Any], changes: Sequence[str]) -> dict[str, Any]:
    """Returns the stages with classes and arguments changed as `--set` says.

    Args:
        stages: of the configuration.
        changes: each STAGE.ARGUMENT=VALUE, the value in YAML, STAGE=CLASS, or STAGE=null.

    Raises:
        ValueError: if one cannot be read, or names a stage that is not there.

    >>> with_changes({"tags": {"class_path": "X"}}, ["tags.top=2"])
    {'tags': {'class_path': 'X', 'init_args': {'top': 2}}}
    >>> with_changes({"speech": {"class_path": "X", "init_args": {"top": 1}}}, ["speech=Y", "speech.model=m"])
    {'speech': {'class_path': 'Y', 'init_args': {'model': 'm'}}}
    """
    import yaml

    from peav.suggest import suggest

    changed = dict(stages)
    for change in changes:
        place, equals, value = change.partition("=")
        stage, _, argument = place.partition(".")
        if not equals:
            raise ValueError(f"--set takes STAGE.ARGUMENT=VALUE, or STAGE=null, not {change!r}")
        if stage not in changed:
            raise ValueError(f"--set {change!r}: there is no stage {stage!r}. {suggest(stage, changed)}")
        try:
            given = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise ValueError(f"--set {change!r}: the value is no YAML: {str(error).splitlines()[0]}") from None
        if not argument:
            if not isinstance(given, str | None):
                raise ValueError(
                    f"--set {change!r}: a stage is left out by null, or becomes another class; an argument is {stage}.NAME=VALUE"
                )
            changed[stage] = None if given is None else {"class_path": given}
            continue
        if changed[stage] is None:
            raise ValueError(f"--set {change!r}: the stage {stage!r} is left out")
        arguments = {**(changed[stage].get("init_args") or {})}
        held = arguments
        *path, last = argument.split(".")
        if not all((*path, last)):
            raise ValueError(f"--set {change!r}: an argument has no name")
        for name in path:
            inner = held.get(name)
            if not isinstance(inner, Mapping | None):
                raise ValueError(
                    f"--set {change!r}: {name!r} is {inner!r:.100}, into which nothing can be set: give it anew as a whole, "
                    f"{stage}.{name}={{...}}"
                )
            held[name] = dict(inner or {})
            held = held[name]
        held[last] = given
        changed[stage] = {**changed[stage], "init_args": arguments}
    return changed


def _show(clips: Any) -> None:
    import json

    for clip, made in clips:
        print(clip)
        for stage, columns in made:
            for name, value in columns.items():
                more = len(value) - SHOWN_ENTRIES if isinstance(value, list) else 0
                shown = value[:SHOWN_ENTRIES] if more > 0 else value
                print(f"  {stage}.{name}: {json.dumps(shown, ensure_ascii=False)}" + f" and {more} more" * (more > 0))


def _summary(done: Any, folder: str) -> None:
    published = done.published
    total = sum(published.captions.values())
    counts = ", ".join(f"{count:,} {kind}" for kind, count in published.captions.items())
    print(f"wrote {total:,} captions into {folder}" + (f" ({counts})" if counts else ""))
    if published.filled:
        print("filled in: " + ", ".join(f"{count:,} {name}" for name, count in published.filled.items()))
    if kept := sum(published.kept.values()):
        print(f"{kept:,} times a clip kept the synthetic captions of a type that it had (--replace replaces them)")
    if withdrawn := sum(published.withdrawn.values()):
        print(f"withdrew {withdrawn:,} captions of earlier jobs, in whose place this one writes nothing")
    if standing := sum(published.standing.values()):
        print(
            f"{standing:,} captions of earlier jobs stay though their clips are left out now (--replace withdraws them)"
        )
    for (gate, outcome), count in sorted(published.survey.verdicts.items()):
        print(f"the gate {gate} refused {count:,}, which were {outcome}")
    for reason, count in published.dropped.items():
        print(f"{count:,} captions were left out ({reason}): see dropped.jsonl in the folder of the work")
    if done.failed:
        print(f"{done.failed:,} clips failed at a stage: the same command tries them again; more of them in the report")
        for (stage, reason), count in published.survey.reasons.most_common(3):
            print(f"  {stage}, {count:,} clips, such as: {published.survey.first[stage, reason][1]:.200}")
    for stage, seconds in done.timing.stages.items():
        tokens = done.timing.tokens_of(stage)
        rate = f"{done.timing.per_million(seconds):,.1f} h per million clips (projected)"
        print(f"  {stage}: {seconds:,.1f} s, {rate}{f'; {tokens}' if tokens else ''}")
    print(done.timing.sentence())
    print(f"the report is {done.page}")
