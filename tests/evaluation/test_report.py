from __future__ import annotations

import base64
import io
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from PIL import Image

from peav.evaluation import EmbeddingTable, Evaluation, evaluate_table
from peav.evaluation.examples import event_clips, event_probabilities, retrieved_examples, similarity_matrix
from peav.evaluation.media_plots import ClipMedia, frame_uri, log_mel, mel_uri
from peav.evaluation.overview import write_overview
from peav.evaluation.plots import Figure, curves_figure, data_uri
from peav.evaluation.report import write_report
from tests.evaluation.synthetic import make_history, make_media, make_table
from tests.evaluation.test_directions import own_names

SECTIONS = ["training", "retrieval", "similarity", "examples", "events", "table", "phrases", "scales", "settings"]
VOID = {"meta", "img", "br", "link", "hr"}


class Checker(HTMLParser):
    """Collects what the tests look at, and whether every element is closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.stack: list[str] = []
        self.broken: list[str] = []
        self.sources: list[str] = []
        self.links: list[str] = []
        self.alts: list[str] = []
        self.ids: list[str] = []
        self.tags: set[str] = set()
        self.absent: list[str] = []
        self._in_absent = False
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.tags.add(tag)
        if tag not in VOID:
            self.stack.append(tag)
        if "src" in found:
            self.sources.append(found["src"])
        if tag == "img":
            self.alts.append(found.get("alt", ""))
        if "href" in found:
            self.links.append(found["href"])
        if "id" in found:
            self.ids.append(found["id"])
        self._in_absent = found.get("class") == "absent"

    def handle_data(self, data):
        if self._in_absent:
            self.absent.append(data)

    def handle_endtag(self, tag):
        self._in_absent = False
        if not self.stack or self.stack.pop() != tag:
            self.broken.append(tag)


def well_formed(text: str) -> Checker:
    found = Checker(text)
    assert not found.broken and not found.stack
    assert found.ids == SECTIONS
    assert "script" not in found.tags and "link" not in found.tags and "iframe" not in found.tags
    assert all(source.startswith(("data:image/", "data:audio/aac")) for source in found.sources)
    assert found.links and all(link.startswith("#") and link[1:] in SECTIONS for link in found.links)
    assert not re.search(r"https?://|url\(|@import|srcset", text)
    assert all(found.alts)
    return found


@pytest.fixture(scope="module")
def table() -> EmbeddingTable:
    return make_table(40)


@pytest.fixture(scope="module")
def evaluation(table):
    return evaluate_table(table)


def test_a_full_report_has_every_part_and_needs_no_other_file(table, evaluation, tmp_path):
    control = evaluate_table(make_table(40, signal=0.0, seed=3))
    settings = {"batch size": 64, "note": "a < b & c"}
    path = write_report(
        tmp_path / "deep" / "r.html", evaluation, table, make_history(100), control, make_media(40), "Run <1>", settings
    )
    text = path.read_text()
    found = well_formed(text)
    assert not found.absent
    assert path.stat().st_size < 3.3e6
    assert "Run &lt;1&gt;" in text and "Run <1>" not in text and "a &lt; b &amp; c" in text
    for name in evaluation.directions:
        assert name.replace("->", " → ") in text
    best = evaluation.directions["text_audio->audio"].plain
    assert f'{100 * best["R@1"]:.1f}<span class="unit"> %' in text
    assert f"{best['R@1'] / best['chance_R@1']:.3g} × chance" in text
    assert f"{evaluation.frames.macro:.3f}" in text
    assert f"<td>PSDS1</td><td>{evaluation.frames.metrics['psds1']:.3f}</td>" in text
    assert "of 24 directions" in text
    assert text.count('class="example"') == 4 and text.count('class="mel"') == 12
    ranks_first = sum(hit.right for e in retrieved_examples(table) for hit in e.hits)
    assert text.count("✓ right") == ranks_first > 0
    assert text.count("Clip clip-") == 4


def test_a_bare_report_says_what_is_missing(tmp_path):
    rows = torch.arange(5)
    table = EmbeddingTable(
        list("abcde"),
        {"audio": torch.eye(5), "text_audio": torch.eye(5)},
        clips={"audio": rows, "text_audio": rows},
        groups={"audio": rows, "text_audio": rows},
    )
    text = write_report(tmp_path / "r.html", evaluate_table(table), table).read_text()
    found = well_formed(text)
    said = " ".join(found.absent)
    for missing in (
        "No history",
        "No control",
        "No media",
        "No frame-level",
        "audio × video",
        "no scale or bias",
        "No settings",
    ):
        assert missing in said
    assert "Not measured here: text → video, audio → video, frame AUROC" in text
    assert "100.0" in text


def test_an_empty_table_still_gives_a_report(tmp_path):
    table = EmbeddingTable(["a"], {}, {}, {})
    with pytest.raises(ValueError, match="nothing to evaluate: of 1 clips there is no embedding"):
        evaluate_table(table)
    found = well_formed(write_report(tmp_path / "r.html", Evaluation(1, {}), table).read_text())
    assert len(found.absent) >= 8
    write_overview(tmp_path / "o.png", Evaluation(1, {}), table)


def test_a_report_on_names_of_ones_own_shows_them(tmp_path):
    text = write_report(tmp_path / "r.html", evaluate_table(own_names()), own_names()).read_text()
    well_formed(text)
    assert "depth × text_title" in text and "depth → text_title, R@1" in text
    assert "audio (it is in no pair" in text
    assert retrieved_examples(own_names())[0].direction == "text_title->depth"
    write_overview(tmp_path / "o.png", evaluate_table(own_names()), own_names())


def test_control_outside_chance_is_named(table, evaluation, tmp_path):
    text = write_report(tmp_path / "r.html", evaluation, table, control=evaluation).read_text()
    assert "in 0 of 24 directions; outside: audio → video (" in text


def test_clips_without_picture_or_sound(table, evaluation, tmp_path):
    def load(clip_id):
        return None, None, 16000

    text = write_report(tmp_path / "r.html", evaluation, table, examples=load).read_text()
    well_formed(text)
    assert text.count("neither picture nor sound") == 12


def test_the_overview_is_a_wide_picture(table, evaluation, tmp_path):
    image = Image.open(write_overview(tmp_path / "o.png", evaluation, table, make_media(40), "Run"))
    assert image.width == 1600
    bare = Image.open(write_overview(tmp_path / "p.png", evaluation, replace(table, frames=None, texts={})))
    assert bare.width == 1600
    assert np.asarray(image.convert("L")).std() > np.asarray(bare.convert("L")).std() > 5


def test_examples_name_the_right_clip(table):
    scores = table.embeddings["text_audio_video"] @ table.embeddings["audio_video"].T
    for example in retrieved_examples(table):
        row = table.texts["text_audio_video"].index(example.query)
        order = scores[row].argsort(descending=True).tolist()
        clips = [int(table.clips["audio_video"][m]) for m in order]
        assert example.rank == clips.index(row) + 1
        assert [hit.clip_id for hit in example.hits] == [table.clip_ids[c] for c in clips[:3]]
        assert [hit.right for hit in example.hits] == [c == row for c in clips[:3]]


def test_similarity_matrix_pairs_the_same_clips(table):
    eye = {name: torch.eye(40)[table.clips[name]] for name in ("audio", "video")}
    clips, groups = ({name: rows[name] for name in eye} for rows in (table.clips, table.groups))
    one_hot = EmbeddingTable(table.clip_ids, eye, clips, groups)
    matrix = similarity_matrix(one_hot, "audio", "video", 16)
    assert matrix is not None and torch.equal(matrix, torch.eye(16))
    assert similarity_matrix(one_hot, "audio", "text_audio") is None


def test_event_probabilities_show_what_sounds_and_the_worst_false_alarm(table):
    clips = event_clips(table)
    assert len(clips) == 4 and all(table.events[c] for c in clips)
    shown = event_probabilities(table, clips[0])
    held = [e[0] for e in table.events[clips[0]]]
    assert list(shown)[:-1] == held and list(shown)[-1] not in held
    for phrase, values in shown.items():
        k = table.phrases.index(phrase)
        expected = torch.sigmoid(10 * table.frames[clips[0]] @ table.text_event[k] - 4)
        torch.testing.assert_close(values, expected)


def test_log_mel_places_a_tone_and_refuses_stereo():
    rate = 16000
    time = torch.arange(2 * rate) / rate
    low, high = (log_mel(torch.sin(2 * torch.pi * f * time), rate).mean(1).argmax() for f in (200.0, 4000.0))
    assert low < 10 < 40 < high
    onset = log_mel(torch.where(time > 1, torch.sin(6000 * time), 0.0), rate)
    assert onset[:, : onset.shape[1] // 2 - 10].max() < -60 and onset[:, onset.shape[1] // 2 + 10 :].max() > -5
    with pytest.raises(ValueError, match="waveform"):
        log_mel(torch.zeros(2, 100), rate)


def test_spectrograms_have_low_bands_at_the_bottom():
    mel = np.full((64, 30), -70.0)
    mel[:8] = 0.0
    picture = Image.open(io.BytesIO(base64.b64decode(mel_uri(mel).partition(",")[2]))).convert("L")
    pixels = np.asarray(picture, dtype=float)
    assert pixels[-8:].mean() > pixels[:8].mean() + 50


def test_media_are_checked_and_loaded_once():
    calls = []

    def load(clip_id):
        calls.append(clip_id)
        return (torch.zeros(4, 5, 3) if clip_id == "bad" else torch.zeros(4, 5, 3).byte()), torch.ones(800), 16000

    media = ClipMedia(load)
    assert media.get("a")[2] == 0.05 and media.get("a") is media.get("a") and calls == ["a"]
    with pytest.raises(ValueError, match="uint8"):
        media.get("bad")
    assert frame_uri(np.zeros((4, 5, 3), np.uint8)).startswith("data:image/jpeg;base64,")


def test_curves_skip_values_that_are_not_finite(table, evaluation, tmp_path):
    history = {"train/loss": [(0.0, 1.0), (1.0, float("nan")), (2.0, 0.5)], "train/loss/a": [(0.0, float("inf"))]}
    well_formed(write_report(tmp_path / "r.html", evaluation, table, history).read_text())
    figure = curves_figure({"loss": {"train": [(0.0, 1.0), (2.0, 0.5)]}})
    assert isinstance(figure, Figure) and list(np.asarray(figure.axes[0].lines[0].get_ydata())) == [1.0, 0.5]
    assert data_uri(figure) == data_uri(curves_figure({"loss": {"train": [(0.0, 1.0), (2.0, 0.5)]}}))
