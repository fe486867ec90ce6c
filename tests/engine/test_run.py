"""The run: parts, keys, claims, failures, and what is in the manifest at the end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from peav.data.manifests.manifest import open_manifest, write_manifest
from peav.engine.calibration import sample_clips
from peav.engine.claims import Claims, Pulse
from peav.engine.engine import caption
from peav.engine.execution import Execution
from peav.engine.job import Job, JobSpec
from peav.engine.publish import PublishOptions
from peav.engine.rows import PartFile
from peav.engine.stage import EngineError, EngineStop
from peav.engine.where import Condition
from tests.engine.data import config, flaky, seen, write_clips

ROOT = Path(__file__).parents[2]


def spec(data: Path, stages: dict[str, Any], **more: Any) -> JobSpec:
    return JobSpec(str(data), stages, **{"part_clips": 3, "batch_clips": 2, **more})


def run(one: JobSpec, **more: Any) -> Any:
    options = more.pop("options", PublishOptions())
    return caption(one, options, samples=0, **more)


def texts(data: Path) -> dict[str, list[tuple[str, str]]]:
    return {
        clip.id: [(c.text, c.origin) for c in clip.captions.get("audio", ())] for clip in open_manifest(data, "train")
    }


def test_captions_go_into_the_manifest_as_synthetic_with_provenance(tmp_path: Path) -> None:
    data = write_clips(tmp_path / "d")
    done = run(spec(data, config()))
    assert texts(data)["clip-0"] == [("real words 0", "real"), ("sound clip-0 x y", "synthetic")]
    assert texts(data)["clip-7"] == [("sound clip-7 x y", "synthetic")]
    assert done.published.captions == {"audio": 10}
    lines = [json.loads(line) for line in (data / "provenance" / "train.jsonl").read_text().splitlines()]
    assert [line["id"] for line in lines] == [f"clip-{k}" for k in range(10)]
    assert lines[3]["text"] == "sound clip-3 x y" and lines[3]["stages"].keys() == {"tags", "write"}
    assert lines[3]["scores"]["tags"] == [["sound clip-3 x", 1.0, "high"]]


def test_a_finished_job_does_nothing_again_and_a_new_prompt_only_what_reads_it(tmp_path: Path) -> None:
    data, log = write_clips(tmp_path / "d"), tmp_path / "log"
    run(spec(data, config(log, other=flaky(log))))
    assert Counter(line.split()[0] for line in seen(log)) == {"ScriptedTags": 10, "ScriptedWriter": 10, "Flaky": 10}
    manifest = (data / "manifest" / "train.jsonl").read_bytes()
    log.unlink()
    run(spec(data, config(log, other=flaky(log))))
    assert seen(log) == [] and (data / "manifest" / "train.jsonl").read_bytes() == manifest
    run(spec(data, config(log, writer="z", other=flaky(log))))
    assert Counter(line.split()[0] for line in seen(log)) == {"ScriptedWriter": 10}
    # The old synthetic captions stay without --replace, and give way with it; the real ones stay.
    assert texts(data)["clip-0"] == [("real words 0", "real"), ("sound clip-0 x y", "synthetic")]
    log.unlink()
    done = run(spec(data, config(log, writer="z", other=flaky(log))), options=PublishOptions(replace=True))
    assert seen(log) == [] and done.published.captions == {"audio": 10}
    assert texts(data)["clip-0"] == [("real words 0", "real"), ("sound clip-0 x z", "synthetic")]
    run(spec(data, config(log, tags="w", writer="z", other=flaky(log))))
    assert Counter(line.split()[0] for line in seen(log)) == {"ScriptedTags": 10, "ScriptedWriter": 10}


@pytest.mark.parametrize(
    "changes",
    [{"part_clips": 4}, {"where": "has_video"}, {"stages": {"tags": config()["tags"]}}],
    ids=["parts", "where", "stages"],
)
def test_another_job_in_the_same_folder_is_refused(tmp_path: Path, changes: dict[str, Any]) -> None:
    data = write_clips(tmp_path / "d")
    run(spec(data, config()))
    with pytest.raises(EngineError, match="holds another job"):
        run(spec(data, **{"stages": config(), **changes}))
    with pytest.raises(EngineError, match="not made by"):
        run(spec(data, config(), work=str(data)))


def test_other_splits_are_another_job(tmp_path: Path) -> None:
    data = write_clips(tmp_path / "d")
    write_manifest(data / "manifest" / "test.jsonl", list(open_manifest(data, "train")))
    run(spec(data, config()))
    with pytest.raises(EngineError, match="--splits was train and is train, test"):
        run(spec(data, config(), splits=("train", "test")))


def test_other_settings_are_refused_while_a_run_is_at_work(tmp_path: Path) -> None:
    from peav.engine.run import opened

    data = write_clips(tmp_path / "d")
    with opened(Job(spec(data, config()))):
        with opened(Job(spec(data, config()))):
            pass
        with pytest.raises(EngineError, match="another run is at work"), opened(Job(spec(data, config(writer="z")))):
            pass
    run(spec(data, config(writer="z")))


@pytest.mark.parametrize("how", ["raise", "row"])
def test_failures_are_rows_that_the_next_run_tries_again(tmp_path: Path, how: str) -> None:
    data, log = write_clips(tmp_path / "d"), tmp_path / "log"
    stages = config(measure=flaky(log, mended=str(tmp_path / "ok"), how=how, bad=["clip-4", "clip-5"]))
    assert run(spec(data, stages)).failed == 2
    assert texts(data)["clip-4"]  # the writer does not read what failed
    log.unlink()
    assert run(spec(data, stages, retry_failed=False)).failed == 2 and seen(log) == []
    assert run(spec(data, stages)).failed == 2
    job = Job(spec(data, stages))
    rows = job.file(job.parts[1], "measure").load()
    assert rows["clip-4"]["attempts"] == 2 and ("cannot do" in rows["clip-4"]["failed"]) == (how == "raise")
    (tmp_path / "ok").touch()
    log.unlink()
    assert run(spec(data, stages)).failed == 0
    assert sorted(seen(log)) == ["Flaky clip-4", "Flaky clip-5"]


def test_what_waits_for_a_failed_stage_is_done_once_that_succeeds(tmp_path: Path) -> None:
    data = write_clips(tmp_path / "d")
    stages = {"measure": flaky(mended=str(tmp_path / "ok"), bad=["clip-4"]), **config()}
    stages["last"] = {"class_path": "tests.engine.data.ReadsMeasures"}
    assert run(spec(data, stages)).failed == 1
    job = Job(spec(data, stages))
    assert job.file(job.parts[1], "last").load()["clip-4"]["blocked"] == "measure"
    (tmp_path / "ok").touch()
    assert run(spec(data, stages)).failed == 0
    assert "out" in job.file(job.parts[1], "last").load()["clip-4"]


def test_a_stage_that_fails_for_all_ends_the_run(tmp_path: Path) -> None:
    data = write_clips(tmp_path / "d")
    bad = [f"clip-{k}" for k in range(10)]
    with pytest.raises(EngineStop, match=r"failed for the first [34] clips"):
        run(spec(data, config(measure=flaky(bad=bad)), max_failures=3))
    with pytest.raises(EngineStop, match="server is gone"):
        run(spec(data, config(measure=flaky(bad=["clip-9"], how="stop"))))
    assert not texts(data)["clip-1"]


@pytest.mark.parametrize("workers", [1, 3])
def test_processes_give_the_same_as_one(tmp_path: Path, workers: int) -> None:
    alone, many, log = write_clips(tmp_path / "a"), write_clips(tmp_path / "m"), tmp_path / "log"
    run(spec(alone, config()))
    run(spec(many, config(log)), execution=Execution("process", workers))
    assert (alone / "manifest" / "train.jsonl").read_bytes() == (many / "manifest" / "train.jsonl").read_bytes()
    assert Counter(seen(log)).most_common(1)[0][1] == 1 and len(seen(log)) == 20


def test_a_clip_that_kills_its_process_is_a_failure_and_the_others_are_done(tmp_path: Path) -> None:
    data = write_clips(tmp_path / "d")
    stages = config(measure=flaky(bad=["clip-4"], how="kill"))
    done = run(spec(data, stages), execution=Execution("process", 2))
    assert (
        done.failed == 1
        and done.published.survey.reasons[("measure", "the process died while it worked on this clip")] == 1
    )
    assert all(texts(data).values()) and not list((data / "engine" / "claims").iterdir())


RUN = """
import sys
from pathlib import Path
from tests.engine.data import config, flaky
from tests.engine.test_run import run, spec
data, log, mended, how = Path(sys.argv[1]), *sys.argv[2:]
run(spec(data, config(log, measure=flaky(log, mended=mended, bad=["clip-5"], how=how))))
"""


def start(*arguments: object) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", RUN, *map(str, arguments)], cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )


def test_killed_runs_resume_and_no_clip_is_done_twice_but_those_in_flight(tmp_path: Path) -> None:
    data, log, mended = write_clips(tmp_path / "d"), tmp_path / "log", tmp_path / "ok"
    process = start(data, log, mended, "slow")
    while not any("Flaky clip-5" in line for line in seen(log)):
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    mended.touch()
    run(spec(data, config(log, measure=flaky(log, mended=str(mended), bad=["clip-5"], how="slow"))))
    alone = write_clips(tmp_path / "a")
    run(spec(alone, config(measure=flaky())))
    assert (alone / "manifest" / "train.jsonl").read_bytes() == (data / "manifest" / "train.jsonl").read_bytes()
    twice = {line for line, count in Counter(seen(log)).items() if count > 1}
    # The batch in flight: its tags were kept, its measures were not.
    assert twice <= {"Flaky clip-5", "Flaky clip-4"} and len(Counter(seen(log))) == 30


def test_two_runs_share_the_work(tmp_path: Path) -> None:
    data, log = write_clips(tmp_path / "d", 30), tmp_path / "log"
    processes = [start(data, log, tmp_path / "none", "row") for _ in range(2)]
    assert [process.wait() for process in processes] == [0, 0]
    assert max(count for line, count in Counter(seen(log)).items() if "clip-5" not in line) == 1
    assert all(texts(data).values())


def test_a_manifest_with_other_clips_is_not_written(tmp_path: Path) -> None:
    from peav.engine.publish import publish
    from peav.engine.run import opened, run_parts

    data = write_clips(tmp_path / "d")
    one = spec(data, config())
    job = Job(one)
    with opened(job) as one_run:
        run_parts(one_run)
        write_clips(data, 9)
        with pytest.raises(EngineError, match="changed during the run"):
            publish(job, PublishOptions())
    assert not any(len(found) > 1 for found in texts(data).values())


def test_a_full_disk_ends_the_run_and_nothing_is_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = write_clips(tmp_path / "d")
    before = (data / "manifest" / "train.jsonl").read_bytes()
    note = PartFile.note
    calls = []

    def full(self: PartFile, rows: Any) -> None:
        calls.append(1)
        if len(calls) > 4:
            raise OSError(28, "No space left on device")
        note(self, rows)

    monkeypatch.setattr(PartFile, "note", full)
    with pytest.raises(OSError, match="No space left"):
        run(spec(data, config()))
    assert (data / "manifest" / "train.jsonl").read_bytes() == before
    monkeypatch.undo()
    run(spec(data, config()))
    assert all(texts(data).values())


def test_stale_claims_are_taken_over_and_live_ones_are_not(tmp_path: Path) -> None:
    mine, other = Pulse(tmp_path, stale=1.0), Pulse(tmp_path, stale=1.0)
    try:
        assert Claims(tmp_path, other).take("train-0") == {}
        assert Claims(tmp_path, mine).take("train-0") is None
        path = tmp_path / "claims" / "train-0"
        path.write_text(json.dumps({**json.loads(path.read_text()), "host": "elsewhere"}))
        other.unwatch(path)
        os.utime(path, (time.time() - 5, time.time() - 5))
        before = Claims(tmp_path, mine).take("train-0")
        assert before is not None and before["host"] == "elsewhere"
        assert json.loads(path.read_text())["crashes"] == 1
    finally:
        mine.close()
        other.close()


@pytest.mark.parametrize(
    "text",
    ["domain = 'a'", "duraton < 3", "__import__('os')", "id.upper()", "lambda: 1", "1 +", "has_audio if id else 2"],
)
def test_conditions_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="--where"):
        Condition(text)


def test_where_chooses_clips(tmp_path: Path) -> None:
    data = write_clips(tmp_path / "d")
    run(spec(data, config(), where="has_video and 'audio' not in real_captions"))
    assert [name for name, found in texts(data).items() if any(o == "synthetic" for _, o in found)] == [
        "clip-2",
        "clip-4",
        "clip-6",
        "clip-8",
    ]


def test_the_one_clip_among_many_that_is_asked_for_is_in_every_sample(tmp_path: Path) -> None:
    data = write_clips(tmp_path / "d", 60)
    for k in range(0, 60, 7):
        job = Job(spec(data, config(), where=f"id == 'clip-{k}'"))
        assert [clip.id for clip in sample_clips(job, 1, "calibration")] == [f"clip-{k}"]


def test_a_condition_that_no_clip_fulfils_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    data = write_clips(tmp_path / "d")
    manifest = (data / "manifest/train.jsonl").read_bytes()
    done = run(spec(data, config(), where="duration > 99"))
    assert "no clip of" in caplog.text and "by 'duration > 99'" in caplog.text
    assert not done.published.captions and (data / "manifest/train.jsonl").read_bytes() == manifest


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"executor": "slurm"}, "one of inline, process, ray, got 'slurm'"),
        ({"workers": 0}, "workers must be at least 1, got 0"),
        ({"gpus": -0.5}, "gpus must not be negative, got -0.5"),
        ({"stale_seconds": 0.0}, "stale_seconds must be positive, got 0"),
    ],
)
def test_an_execution_that_cannot_be_is_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Execution(**settings)


PROCESSES = """
import sys
from pathlib import Path
from peav.engine.execution import Execution
from tests.engine.data import config, flaky
from tests.engine.test_run import run, spec
if __name__ == "__main__":
    data, log = Path(sys.argv[1]), sys.argv[2]
    stages = config(log, measure=flaky(log, mended="", bad=["clip-5"], how="slow"))
    run(spec(data, stages), execution=Execution("process", 2))
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT], ids=["killed", "interrupted"])
def test_no_worker_outlives_the_run(tmp_path: Path, number: signal.Signals) -> None:
    data, log, script = write_clips(tmp_path / "d"), tmp_path / "log", tmp_path / "run.py"
    script.write_text(PROCESSES)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen([sys.executable, str(script), str(data), str(log)], cwd=ROOT, env=environment)
    while not any("Flaky clip-5" in line for line in seen(log)):
        assert process.poll() is None
        time.sleep(0.05)
    workers = [json.loads(path.read_text())["pid"] for path in (data / "engine" / "claims").glob("train-*")]
    assert workers and process.pid not in workers
    process.send_signal(number)
    process.wait(timeout=120)
    deadline = time.monotonic() + 60
    while any(_lives(pid) for pid in workers):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_the_page_shows_the_one_clip_of_many_parts_that_was_asked_for(tmp_path: Path) -> None:
    data = write_clips(tmp_path / "d", 40)
    for number in (3, 17, 31):
        one = spec(data, config(), part_clips=1, where=f"id == 'clip-{number}'", work=str(tmp_path / f"w{number}"))
        page = caption(one, PublishOptions(), samples=2).page.read_text()
        assert f">clip-{number}<" in page and "1 of the 1 clips with a caption" in page
