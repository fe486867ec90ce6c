"""Texts as people have them, through `peav prepare`: what is changed is noted, what is only written otherwise is one text."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path

import numpy as np
import pytest
import soundfile
from tokenizers import Tokenizer

from peav.cli.main import main
from peav.data import ClipDataset, collate, open_manifest
from peav.encoders.text import Tokenize

#: Captions by clip: emoji of several code points, Arabic, an accent by itself and with its letter, separators of lines inside a text.
CAPTIONS = {
    "emoji": "a dog \U0001f415\u200d\U0001f9ba barks",
    "arabic": "\u0643\u0644\u0628 \u064a\u0646\u0628\u062d \u0641\u064a \u0627\u0644\u0634\u0627\u0631\u0639",
    "composed": unicodedata.normalize("NFC", "caf\u00e9 noises"),
    "decomposed": unicodedata.normalize("NFD", "caf\u00e9 noises"),
    "lines": "rain\u2028then\u0085wind\u2029then snow",
    "entities": "Tom &amp; Jerry&#39;s &lt;b&gt; R&B; a &copy b",
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose listing begins with a byte order mark, prepared from the command line."""
    root = tmp_path_factory.mktemp("texts")
    source = root / "source"
    source.mkdir()
    soundfile.write(source / "a.wav", np.random.default_rng(0).uniform(-0.1, 0.1, 8000), 8000)
    lines = [
        json.dumps(
            {
                "id": name,
                "audio": "a.wav",
                "captions": {"audio": text},
                "transcript": text,
                "events": [{"phrase": text, "onset": 0, "offset": 0.5}],
            },
            ensure_ascii=False,
        )
        for name, text in CAPTIONS.items()
    ]
    (source / "clips.jsonl").write_bytes(b"\xef\xbb\xbf" + "\n".join(lines).encode())
    assert main(["prepare", str(source), str(root / "data")]) == 0
    return root / "data"


def test_texts_are_kept_but_for_entities(data: Path) -> None:
    expected = {**CAPTIONS, "entities": "Tom & Jerry's <b> R&B; a &copy b"}
    clips = {clip.id: clip for clip in open_manifest(data, "train")}
    assert {name: clip.captions["audio"][0].text for name, clip in clips.items()} == expected
    assert {name: clip.transcript for name, clip in clips.items()} == expected
    assert {name: clip.events[0].phrase for name, clip in clips.items() if clip.events} == expected
    notes = [json.loads(line)["note"] for line in (data / "notes.jsonl").read_bytes().split(b"\n") if line]
    said = f"decoded: {CAPTIONS['entities']!r}"
    assert notes == [f"HTML entities of {what} {said}" for what in ("a caption of type 'audio'", "the transcript")]
    # A manifest is what it says: nothing is decoded again.
    assert open_manifest(edited(data), "train")[0].captions["audio"][0].text == "a &amp; b"


def edited(data: Path) -> Path:
    """The data with an entity that the user wrote into the manifest."""
    path = data / "manifest/train.jsonl"
    first, *others = path.read_text(encoding="utf-8").split("\n")
    cut = json.loads(first)
    cut["custom"]["captions"]["audio"] = ["a &amp; b"]
    other = data.parent / "edited"
    (other / "manifest").mkdir(parents=True, exist_ok=True)
    (other / "manifest/train.jsonl").write_text("\n".join([json.dumps(cut), *others]), encoding="utf-8")
    return other


def test_one_text_in_two_forms_is_one_text(data: Path) -> None:
    dataset = ClipDataset(data, "train", fields=["captions.audio", "events"])
    batch = collate(dataset.__getitems__(range(len(dataset))), tokenizer(data))
    ids = list(batch.ids)
    one, other = ids.index("composed"), ids.index("decomposed")
    group, tokens = batch.captions["audio"].group, batch.captions["audio"].input_ids
    assert group[one] == group[other] and (tokens[one] == tokens[other]).all()
    assert len(set(group.tolist())) == len(CAPTIONS) - 1
    assert batch.events is not None and len(batch.events.phrases.group) == len(CAPTIONS) - 1


def tokenizer(data: Path) -> Tokenize:
    return Tokenize((data / "tokenizer.json").read_text(encoding="utf-8"), 64, 0)


@pytest.mark.parametrize("name", ["emoji", "arabic", "lines"])
def test_the_tokenizer_loses_nothing(name: str, data: Path) -> None:
    made = Tokenizer.from_file(str(data / "tokenizer.json"))
    ids = made.encode(CAPTIONS[name]).ids
    assert made.token_to_id("[UNK]") not in ids
    # It reads letters as NFKC has them, to which U+0085 and U+2028 are as good as any other.
    assert made.decode(ids).split() == unicodedata.normalize("NFKC", CAPTIONS[name]).split()


def test_the_page_sets_each_text_in_its_own_direction(data: Path, tmp_path: Path) -> None:
    assert main(["data", "inspect", str(data), "--out", str(tmp_path / "page.html")]) == 0
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    for name in ("emoji", "arabic", "lines"):
        assert f"<bdi>{CAPTIONS[name]}</bdi>" in page
    assert "Tom &amp; Jerry&#x27;s &lt;b&gt; R&amp;B; a &amp;copy b" in page
