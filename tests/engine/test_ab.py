"""`peav ab`: what the page hides and the key knows, what raters' answers come to, and what neither takes."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import yaml
from scipy.stats import binomtest

from peav.cli.main import main
from peav.data.manifests.manifest import open_manifest, save_manifest
from peav.data.manifests.texts import Caption
from peav.engine.ab.statistics import equal_pairs, krippendorff_alpha, wilson
from tests.data.world import damage, make_data
from tests.engine.data import config

EVIL = "</p><img src=x onerror=alert(1)><script>document.title='taken over'</script> \x1b[31m \u202eخبر & <b>"


def recaption(data: Path, change: Callable[[int, dict[str, Any]], dict[str, Any]]) -> None:
    """Changes the captions of the clips of a folder, each by its position."""
    clips = list(open_manifest(data, "train"))
    save_manifest(data, "train", [replace(c, captions=change(k, dict(c.captions))) for k, c in enumerate(clips)])


def both(real: str, synthetic: str) -> dict[str, Any]:
    return {"audio": (Caption(real), Caption(synthetic, "synthetic"))}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A folder of one's own, to change."""
    return make_data(tmp_path / "data", 8)


@pytest.fixture(scope="module")
def common(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a test that nobody changes."""
    return make(make_data(tmp_path_factory.mktemp("ab") / "data", 8))


def make(data: Path, *words: str) -> Path:
    out = data.parent / "test.html"
    command = ["ab", "make", f"{data}:real", f"{data}:synthetic", f"--out={out}"]
    assert main([*command, *words]) == 0
    return out


def answers(out: Path, folder: Path, choices: list[str | None], rater: str = "") -> Path:
    """A file as the page saves it; its number of the page is read from the page itself."""
    page = re.search(r'data-page="(\w+)"', out.read_text())[1]  # type: ignore[index]
    held = {"peav": "answers of a blind test", "version": 1, "page": page, "rater": rater, "answers": choices}
    path = folder / f"answers-{rater or 'x'}.json"
    path.write_text(json.dumps(held))
    return path


def score(out: Path, *files: Path) -> tuple[int, Path]:
    """Runs `peav ab score`, and returns its status and where its outcome is."""
    outcome = files[0].with_name("outcome.json")
    return main(["ab", "score", str(out.with_suffix(".key.json")), *map(str, files), f"--out={outcome}"]), outcome


def choices_for(out: Path, verdicts: str) -> list[str | None]:
    """The letters by which a rater says of the new captions, in the order of the page, b(etter), s(ame) or w(orse)."""
    pairs = json.loads(out.with_suffix(".key.json").read_text())["pairs"]
    other = {"A": "B", "B": "A"}
    letters = {"b": lambda new: new, "s": lambda new: "same", "w": lambda new: other[new]}
    return [letters[verdict](pair["new_is"]) for verdict, pair in zip(verdicts, pairs, strict=True)]


def test_the_page_tells_nothing_and_the_key_everything(common: Path) -> None:
    page, key = common.read_text(), json.loads(common.with_suffix(".key.json").read_text())
    data = common.with_name("data")
    assert [key["old"], key["new"]] == [f"{data}:real", f"{data}:synthetic"]
    visible = re.sub(r'data:\w+/\w+;base64,[^"]*|<(style|script)>.*?</\1>', "", page, flags=re.DOTALL)
    for hidden in ("real", "synthetic", "train-", "seed", str(data), "old", "new_is"):
        assert hidden not in visible
    shown = re.findall(r'<h3>([AB])</h3><p dir="auto">(.*?)</p>', page)
    expected: list[tuple[str, str]] = []
    for pair in key["pairs"]:
        number = pair["clip"].removeprefix("train-")
        assert (pair["old"], pair["new"]) == (f"tone {number}", f"made {number}")
        texts = (pair["new"], pair["old"]) if pair["new_is"] == "A" else (pair["old"], pair["new"])
        expected += zip("AB", texts, strict=True)
    assert shown == expected and len(shown) == 16
    assert sorted(pair["new_is"] for pair in key["pairs"]) == [*"AAAABBBB"]
    assert page.count("<img") == page.count("<audio") == 8


def test_the_seed_decides_and_nothing_else(data: Path) -> None:
    keys = []
    for seed in (1, 1, 2):
        out = make(data, "--clips=2", f"--seed={seed}", "--overwrite")
        keys.append((out.read_text(), json.loads(out.with_suffix(".key.json").read_text())["pairs"]))
    assert keys[0] == keys[1] and {pair["clip"] for pair in keys[0][1]} != {pair["clip"] for pair in keys[2][1]}


def test_what_cannot_be_compared_is_left_out_and_counted(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def change(place: int, captions: dict[str, Any]) -> dict[str, Any]:
        real, synthetic = captions["audio"]
        about_a_part = Caption("a part", "synthetic", 0.0, 0.05)
        return {
            0: both("The same.", "the  same"),
            1: {"audio": (real,)},
            2: {"audio": (synthetic,)},
            3: {},
            4: {"audio": (real, about_a_part)},
        }.get(place, captions)

    recaption(data, change)
    damage(data, 7)
    out = make(data)
    said = capsys.readouterr().out
    assert "only 2 clips of the 50 asked for" in said
    key = json.loads(out.with_suffix(".key.json").read_text())
    assert {pair["clip"] for pair in key["pairs"]} == {"train-5", "train-6"}
    assert key["left_out"] == {
        "with the same text in both": 1,
        "without a caption in new": 2,
        "without a caption in old": 1,
        "without a caption in both": 1,
        "cannot be decoded": 1,
    }
    assert "left out: 2 clips without a caption in new" in said


def test_of_several_captions_one_is_drawn(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recaption(data, lambda k, _: {"audio": (Caption("r0"), Caption("r1"), Caption("m", "synthetic"))})
    out = make(data, "--clips=4")
    assert {pair["old"] for pair in json.loads(out.with_suffix(".key.json").read_text())["pairs"]} == {"r0", "r1"}
    assert "4 clips have several audio captions" in capsys.readouterr().out


def test_two_folders_whose_clips_are_not_all_the_same(tmp_path: Path) -> None:
    data, other = make_data(tmp_path / "data", 5), make_data(tmp_path / "other", 7)
    recaption(other, lambda k, captions: both(f"another {k}", "x"))
    clips = list(open_manifest(other, "train"))
    save_manifest(other, "train", [replace(c, audio_group=1) if c.id == "train-3" else c for c in clips])
    out = tmp_path / "t.html"
    assert main(["ab", "make", f"{data}:real", f"{other}:real", f"--out={out}"]) == 0
    key = json.loads(out.with_suffix(".key.json").read_text())
    assert key["left_out"] == {"in the new folder alone": 2, "with other media in the two folders": 1}
    assert {(p["old"], p["new"]) for p in key["pairs"]} == {(f"tone {k}", f"another {k}") for k in range(5) if k != 3}


def test_two_jobs_on_one_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = make_data(tmp_path / "data", 4)
    for name, said in (("one", "softly"), ("two", "loudly")):
        stages = tmp_path / f"{name}.yaml"
        stages.write_text(yaml.safe_dump({"stages": config(writer=said)}, sort_keys=False))
        command = [
            "caption",
            str(data),
            f"--config={stages}",
            f"--work={tmp_path / name}",
            "--part_clips=2",
            "--samples=0",
        ]
        assert main(command) == 0
    out = tmp_path / "t.html"
    command = ["ab", "make", str(tmp_path / "one"), str(tmp_path / "two"), f"--out={out}"]
    assert main(command) == 0
    pairs = json.loads(out.with_suffix(".key.json").read_text())["pairs"]
    assert len(pairs) == 4
    for pair in pairs:
        assert (pair["old"], pair["new"]) == tuple(f"sound {pair['clip']} x {word}" for word in ("softly", "loudly"))
    # A clip that has other media now than those that the job heard has no caption of it.
    clips = list(open_manifest(data, "train"))
    save_manifest(data, "train", [replace(c, crc32=c.crc32 ^ 1) if c.id == "train-2" else c for c in clips])
    assert main([*command, "--overwrite", f"--data={data}"]) == 0
    assert json.loads(out.with_suffix(".key.json").read_text())["left_out"] == {"without a caption in both": 1}
    save_manifest(data, "train", clips[1:])
    assert main([*command, "--overwrite"]) == 1
    assert "is a job over other clips" in capsys.readouterr().err


def test_one_rater(common: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, outcome = score(common, answers(common, tmp_path, choices_for(common, "bbbbbsww"), "anna"))
    said, held = capsys.readouterr().out, json.loads(outcome.read_text())
    assert status == 0
    for verdict, count in (("better", 5), ("same", 1), ("worse", 2)):
        share = held["raters"]["anna"][verdict]
        assert (share["count"], share["of"]) == (count, 8)
        interval = binomtest(count, 8).proportion_ci(0.95, method="wilson")
        assert share["interval"] == pytest.approx(list(interval))
        assert f"{count} {100 * count / 8:.1f} % [{100 * interval[0]:.1f}, {100 * interval[1]:.1f}]" in said
    assert "new on 5 of 7 clips" in said and "not told from chance" in said
    assert "with 8 clips a share of one half is known to within 28 points" in said
    pairs = json.loads(common.with_suffix(".key.json").read_text())["pairs"]
    assert [lost["clip"] for lost in held["lost"]] == [pairs[6]["clip"], pairs[7]["clip"]]
    assert "2 clips lost:" in said and pairs[6]["new"] in said
    assert held["agreement"] == {"equal_pairs": None, "krippendorff_alpha": None}


def test_several_raters(common: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said_by = {"anna": "bbbbswwb", "ben": "bbbwswsb", "cleo": "bbwssbbb"}
    files = [answers(common, tmp_path, choices_for(common, said), rater) for rater, said in said_by.items()]
    status, outcome = score(common, *files)
    held = json.loads(outcome.read_text())
    assert status == 0
    # better, better, better, divided, same, worse, divided, better
    assert {verdict: held["majority"][verdict]["count"] for verdict in ("better", "same", "worse", "divided")} == {
        "better": 4,
        "same": 1,
        "worse": 1,
        "divided": 2,
    }
    assert [len(held["lost"]), held["lost"][0]["verdicts"]] == [1, {"anna": "worse", "ben": "worse", "cleo": "better"}]
    # Of the three pairs of raters 3, 3, 1, 0, 3, 1, 0 and 3 agree on the clips.
    assert held["agreement"]["equal_pairs"] == pytest.approx(14 / 24)
    assert held["agreement"]["krippendorff_alpha"] == pytest.approx(
        krippendorff_alpha(zip(*said_by.values(), strict=True))
    )
    said = capsys.readouterr().out
    assert "The 3 raters: 58 % of the pairs" in said
    table = {line.split()[0]: line.count("%") for line in said.splitlines() if line.startswith((*said_by, "majority"))}
    assert table == {"anna": 3, "ben": 3, "cleo": 3, "majority": 4}


def test_a_rater_may_be_called_as_the_last_row_is(
    common: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [answers(common, tmp_path, choices_for(common, said), said) for said in ("bbbbbbbb", "wwwwwwww")]
    files[0].write_text(files[0].read_text().replace("bbbbbbbb", "majority"))
    assert score(common, *files)[0] == 0
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("majority")]
    assert len(rows) == 2 and "8 100.0 %" in rows[0] and rows[1].endswith("8 100.0 % [67.6, 100.0]")


@pytest.mark.parametrize("given", ["key", "answers"])
def test_the_outcome_never_takes_the_place_of_what_it_is_made_of(
    common: Path, tmp_path: Path, given: str, capsys: pytest.CaptureFixture[str]
) -> None:
    key, file = tmp_path / "t.key.json", answers(common, tmp_path, ["A"] * 8)
    key.write_bytes(common.with_suffix(".key.json").read_bytes())
    path = {"key": key, "answers": file}[given]
    before = path.read_bytes()
    assert main(["ab", "score", str(key), str(file), f"--out={path}"]) == 1
    assert "cannot be made again" in capsys.readouterr().err and path.read_bytes() == before


@pytest.mark.parametrize(
    ("verdicts", "said"),
    [("b" * 8, "new is preferred"), ("w" * 8, "old is preferred"), ("s" * 8, "No caption was preferred")],
)
def test_what_is_concluded(
    common: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], verdicts: str, said: str
) -> None:
    assert score(common, answers(common, tmp_path, choices_for(common, verdicts)))[0] == 0
    assert said in capsys.readouterr().out


def test_intervals_are_those_of_scipy() -> None:
    for total in (1, 2, 7, 50, 1000):
        for count, confidence in product({0, 1, total // 2, total - 1, total}, (0.9, 0.95)):
            expected = binomtest(count, total).proportion_ci(confidence, method="wilson")
            assert wilson(count, total, confidence) == pytest.approx(tuple(expected), abs=1e-12)
    for count, total in ((-1, 3), (4, 3), (0, 0)):
        with pytest.raises(ValueError, match="from 0 to the total"):
            wilson(count, total)


@pytest.mark.parametrize(
    ("observers", "alpha"),
    [
        # The examples A, B and C of "Computing Krippendorff's alpha-reliability" (2011).
        (["0100000010", "1110010000"], 0.095),
        (["aabbdcccedda", "babbbccceddd"], 0.692),
        (["123321412...", "1233224125.3", ".3332342251.", "12332441251."], 0.743),
    ],
)
def test_alpha_is_that_of_the_literature(observers: list[str], alpha: float) -> None:
    units = [[value for value in unit if value != "."] for unit in zip(*observers, strict=True)]
    assert krippendorff_alpha(units) == pytest.approx(alpha, abs=5e-4)


def test_agreement_of_one_kind_of_answer_is_not_defined() -> None:
    assert krippendorff_alpha([["same", "same"]] * 3) is None and equal_pairs([["same", "same"]] * 3) == 1.0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--clips=0"], "clips must be at least 1"),
        (["--type=Audio!"], "caption type"),
        (["--type=video"], "no clip has two different captions"),
        (["--split=tset"], "there is no split 'tset'"),
        (["--split=test"], "no split 'test'"),
        (["--out=page.htm"], "must be called NAME.html"),
    ],
)
def test_mistakes_in_making_are_one_line(
    common: Path, tmp_path: Path, words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    out, data = tmp_path / "t.html", common.with_name("data")
    assert main(["ab", "make", f"{data}:real", f"{data}:synthetic", f"--out={out}", *words]) == 1
    error = capsys.readouterr().err.strip()
    assert said in error and len(error.splitlines()) == 1 and not out.exists()


def test_sources_that_are_none(common: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = common.with_name("data")
    (tmp_path / "work").mkdir()
    (tmp_path / "work/job.json").write_text('{"identity": {}}')
    for sources, said in (
        ([str(data), str(data)], "both sources are"),
        ([f"{data}:real", f"{data}/../{data.name}:real"], "both sources are"),
        ([str(data), str(tmp_path / "nowhere")], "no folder"),
        ([str(data), f"{data}:reel"], "no folder"),
        ([str(data), str(tmp_path / "work")], "damaged or of an earlier peav"),
        ([str(data), f"{tmp_path / 'work'}:real"], "leave out :real"),
    ):
        assert main(["ab", "make", *sources, f"--out={tmp_path / 't.html'}"]) == 1
        assert said in capsys.readouterr().err


def test_a_page_that_raters_may_be_at_stays(common: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before, data = common.read_bytes(), common.with_name("data")
    assert main(["ab", "make", f"{data}:real", f"{data}:synthetic", f"--out={common}", "--seed=9"]) == 1
    assert "raters may be at it" in capsys.readouterr().err and common.read_bytes() == before


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "is no JSON"),
        ("[1, 2]", "must hold the answers of a blind test, and holds something else"),
        ('{"peav": "key of a blind test"}', "and holds the key of a blind test"),
        ({"version": 2}, "has the version 2"),
        ({"page": "0" * 24}, "answers of another page"),
        ({"answers": ["A"] * 7}, "a list of 8 answers"),
        ({"answers": "AAAAAAAA"}, "a list of 8 answers"),
        ({"answers": ["A"] * 7 + ["C"]}, "answer 8 is 'C'"),
        ({"answers": ["A"] * 7 + [["B"]]}, "answer 8 is ['B']"),
        ({"answers": ["A"] * 5 + [None] * 3}, "unfinished: 3 of 8 clips are not answered (6, 7, 8)"),
        ({"rater": 7}, "the rater must be a name"),
    ],
)
def test_answers_that_are_none(
    common: Path, tmp_path: Path, text: str | dict[str, Any], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = answers(common, tmp_path, ["A"] * 8)
    path.write_text(text if isinstance(text, str) else json.dumps(json.loads(path.read_text()) | text))
    status, outcome = score(common, path)
    error = capsys.readouterr().err.strip()
    assert status == 1 and said in error and len(error.splitlines()) == 1 and not outcome.exists()


def test_keys_and_raters_that_are_none(common: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    key, file = common.with_suffix(".key.json"), answers(common, tmp_path, ["A"] * 8, "anna")
    held = json.loads(key.read_text())
    first, *others = held["pairs"]
    swapped = {**first, "new_is": "A" if first["new_is"] == "B" else "B"}
    for name, pairs in (("changed", [{**first, "new": "x"}]), ("swapped", [swapped]), ("damaged", [1])):
        (tmp_path / f"{name}.json").write_text(json.dumps({**held, "pairs": [*pairs, *others]}))
    (tmp_path / "again.json").write_bytes(file.read_bytes())
    for words, said in (
        ([key], "give the answers"),
        ([key, file, tmp_path / "again.json"], "are both by 'anna'"),
        ([file, file], "must hold the key of a blind test, and holds the answers"),
        ([key, tmp_path / "nowhere.json"], "No such file"),
        ([tmp_path / "changed.json", file], "was changed since"),
        ([tmp_path / "swapped.json", file], "was changed since"),
        ([tmp_path / "damaged.json", file], "is a damaged key"),
    ):
        assert main(["ab", "score", *map(str, words)]) == 1
        assert said in capsys.readouterr().err


def test_nothing_that_a_caption_says_runs(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recaption(data, lambda k, _: both(f"{k} {EVIL}", f"made {k} {EVIL}"))
    out = make(data, "--clips=2")
    page = out.read_text()
    assert page.count("<script") == 1 and "<img src=x" not in page and "&lt;script&gt;" in page
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)[1]  # type: ignore[index]
    scripts = policy.split("script-src ")[1]
    assert policy.startswith("default-src 'none'") and re.fullmatch(r"'sha256-[\w+/=]{44}'", scripts)
    capsys.readouterr()
    status, outcome = score(out, answers(out, data.parent, choices_for(out, "ww"), "\x1b[31manna\u202e"))
    said = capsys.readouterr().out
    assert status == 0 and "\\x1b[31m" in said and "خبر" in said and not re.search("[\x1b\u202e]", said)
    assert outcome.read_text().isascii()
