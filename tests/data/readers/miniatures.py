"""Miniatures of the sets that models are evaluated on, each in its real layout, with tiny real media.

`make_NAME(root)` writes a set below `root` and returns it. In each a file or more is missing, and one is damaged: its name is in `DAMAGED`.
Media of different clips have different bytes; they are made once a process.
"""

from __future__ import annotations

import io
import json
import math
import subprocess
import tempfile
import wave
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import soundfile

from tests.data.readers.helpers import lines, tabs, write

#: Seconds of the media.
SECONDS = 0.6

#: The id of the clip of each set that is there and cannot be decoded.
DAMAGED = {
    "MSVD": "bbb_5_9",
    "ActivityNetCaptions": "v_broken00001",
    "DiDeMo": "4@N00_4_d.avi",
    "ESC50": "2-3-A-14",
    "UrbanSound8K": "fold2/400-1-0-0",
    "GTZAN": "jazz/jazz.00054",
    "NSynth": "guitar_acoustic_002-060-050",
    "Kinetics": "brokenclip0_000007_000017",
    "UCF101": "YoYo/v_YoYo_g01_c02",
    "HMDB51": "wave/damaged_wave_u_nm_np1_fr_med_0",
    "VGGSound": "damaged_20000",
    "AudioCaps": "damagedtube_30000",
    "Clotho": "evaluation/damaged.wav",
    "VALOR": "damaged_000_10.000",
    "MSRVTT": "video7012",
    "VCTK": "p226_002",
    "AudioSetStrong": "damagedtube_20000",
    "DESED": "eval/public/damaged.wav",
    "URBANSED": "soundscape_test_damaged",
}


@cache
def sound(number: int) -> bytes:
    """Returns a WAV file with a tone of its own."""
    rate = 16000
    tone = (math.sin(2 * math.pi * (200 + 37 * number) * index / rate) for index in range(int(SECONDS * rate)))
    samples = b"".join(int(12000 * value).to_bytes(2, "little", signed=True) for value in tone)
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as stream:
        stream.setnchannels(1)
        stream.setsampwidth(2)
        stream.setframerate(rate)
        stream.writeframes(samples)
    return buffer.getvalue()


@cache
def video(number: int, extension: str = "mp4", audible: bool = True) -> bytes:
    """Returns a video with a colour of its own, and with a tone of its own where it is audible."""
    colour = f"color=0x{(37 * number) % 256:02x}{(91 * number) % 256:02x}80:s=48x32:r=10:d={SECONDS}"
    tone = ["-f", "lavfi", "-i", f"sine={200 + 37 * number}:d={SECONDS}:r=16000"] if audible else []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"v.{extension}"
        codec = ["-c:v", "mpeg4", "-qscale:v", "5", "-threads", "1"]
        command = ["ffmpeg", "-nostdin", "-v", "error", "-f", "lavfi", "-i", colour, *tone, *codec, str(path)]
        subprocess.run(command, check=True)
        return path.read_bytes()


@cache
def flac(number: int) -> bytes:
    """Returns a FLAC file with a tone of its own."""
    samples, rate = soundfile.read(io.BytesIO(sound(number)))
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, format="FLAC")
    return buffer.getvalue()


def damaged(media: bytes) -> bytes:
    """Returns a file that begins as media do, and is cut short where nothing can be decoded."""
    return media[:20] + bytes(20)


def make_msvd(root: Path) -> Path:
    """Clips with captions of what is seen, and the lists of the splits."""
    captions = [
        "# Comments come first",
        "aaa_1_4 a man is playing a guitar",
        "a_b-c_10_20 a dog runs",
        "a_b-c_10_20 A brown dog is running.",
        "",
        "bbb_5_9 a woman cooks",
        "gone_0_7 somebody dances",
        "ccc_2_6 a cat sits",
    ]
    media = {
        "YouTubeClips/aaa_1_4.avi": video(1, "avi", False),
        "YouTubeClips/a_b-c_10_20.avi": video(2, "avi", False),
        "YouTubeClips/bbb_5_9.avi": damaged(video(3, "avi", False)),
        "YouTubeClips/ccc_2_6.avi": video(4, "avi", False),
    }
    lists = {
        "train_list.txt": lines("aaa_1_4"),
        "val_list.txt": lines("ccc_2_6"),
        "test_list.txt": lines("a_b-c_10_20", "bbb_5_9", "gone_0_7"),
    }
    return write(root, {"AllVideoDescriptions.txt": lines(*captions), **lists, **media})


def make_activitynet(root: Path) -> Path:
    """Videos with sentences of their parts, and two annotations of those for validation."""

    def entry(*sentences: str) -> dict[str, Any]:
        step = SECONDS / len(sentences)
        times = [[round(step * index, 2), round(step * (index + 1), 2)] for index in range(len(sentences))]
        return {"duration": SECONDS, "timestamps": times, "sentences": list(sentences)}

    train = {"v_train000001": entry("A man jumps.", " He falls.")}
    first = {
        "v_valid000001": entry("A woman swims.", " She gets out of the pool. ", "She waves."),
        "v_-alid_00002": entry("A dog is washed."),
        "v_broken00001": entry("Nobody knows."),
        "v_gone0000001": entry("It is gone."),
    }
    second = {"v_valid000001": entry("Somebody is in the water.")}
    media = {
        "videos/v_train000001.mp4": video(5),
        "videos/v_valid000001.mp4": video(6),
        "videos/-alid_00002.mkv": video(7, "mkv"),
        "videos/v_broken00001.mp4": damaged(video(8)),
    }
    tables = {"train.json": train, "val_1.json": first, "val_2.json": second}
    return write(root, {**{name: json.dumps(table) for name, table in tables.items()}, **media})


def make_didemo(root: Path) -> Path:
    """Videos with descriptions of their chunks of five seconds."""

    def entry(number: int, name: str, text: str) -> dict[str, Any]:
        times = [[0, 0], [0, 0], [0, 1], [0, 0]]
        return {"annotation_id": number, "video": name, "times": times, "description": text, "num_segments": 6}

    test = [
        entry(1, "1@N00_1_a.avi", "the man waves"),
        entry(2, "2@N00_2_b.mov", "a cat walks away"),
        entry(3, "1@N00_1_a.avi", "he sits down"),
        entry(4, "3@N00_3_c.avi", "this one is gone"),
        entry(5, "4@N00_4_d.avi", "this one is broken"),
    ]
    media = {
        "videos/1@N00_1_a.avi.mp4": video(9),
        "videos/2@N00_2_b.mov": video(10, "mov"),
        "videos/4@N00_4_d.avi.mp4": damaged(video(11)),
        "videos/5@N00_5_e.mp4": video(12),
    }
    tables = {
        "train_data.json": [],
        "val_data.json": [entry(6, "5@N00_5_e.m4v", "a boat")],
        "test_data.json": test,
    }
    return write(root, {**{name: json.dumps(table) for name, table in tables.items()}, **media})


def make_esc50(root: Path) -> Path:
    """Three of the classes in two folds."""
    rows = [
        "filename,fold,target,category,esc10,src_file,take",
        "1-1-A-0.wav,1,0,dog,True,1,A",
        "1-2-A-14.wav,1,14,chirping_birds,False,2,A",
        "2-3-A-14.wav,2,14,chirping_birds,False,3,A",
        "2-4-A-0.wav,2,0,dog,True,4,A",
        "2-5-A-1.wav,2,1,rooster,True,5,A",
        "2-6-A-1.wav,2,1,rooster,True,6,A",
    ]
    media = {
        "audio/1-1-A-0.wav": sound(1),
        "audio/1-2-A-14.wav": sound(2),
        "audio/2-3-A-14.wav": damaged(sound(3)),
        "audio/2-4-A-0.wav": sound(4),
        "audio/2-5-A-1.wav": sound(5),
    }
    return write(root, {"meta/esc50.csv": lines(*rows), **media})


def make_urbansound8k(root: Path) -> Path:
    """Two of the classes in two folds."""
    rows = [
        "slice_file_name,fsID,start,end,salience,fold,classID,class",
        "100-3-0-0.wav,100,0.0,0.5,1,1,3,dog_bark",
        "200-1-0-0.wav,200,1.5,2,2,1,1,car_horn",
        "300-3-1-0.wav,300,0.0,0.5,1,2,3,dog_bark",
        "400-1-0-0.wav,400,0.0,0.5,1,2,1,car_horn",
        "500-1-0-0.wav,500,0.0,0.5,1,2,1,car_horn",
    ]
    media = {
        "audio/fold1/100-3-0-0.wav": sound(6),
        "audio/fold1/200-1-0-0.wav": sound(7),
        "audio/fold2/300-3-1-0.wav": sound(8),
        "audio/fold2/400-1-0-0.wav": damaged(sound(9)),
    }
    return write(root, {"metadata/UrbanSound8K.csv": lines(*rows), **media})


def make_gtzan(root: Path) -> Path:
    """Two of the genres as later copies have them, with the lists without faulty tracks."""
    lists = {
        "train_filtered.txt": lines("blues/blues.00000.wav", "jazz/jazz.00000.wav"),
        "valid_filtered.txt": lines("blues/blues.00001.wav"),
        "test_filtered.txt": lines("jazz/jazz.00001.wav", "jazz/jazz.00099.wav"),
    }
    media = {
        "genres_original/blues/blues.00000.wav": sound(10),
        "genres_original/blues/blues.00001.wav": sound(11),
        "genres_original/jazz/jazz.00000.wav": sound(12),
        "genres_original/jazz/jazz.00001.wav": sound(13),
        "genres_original/jazz/jazz.00054.wav": damaged(sound(14)),
        "images_original/blues/blues00000.png": b"\x89PNG",
        "features_30_sec.csv": b"filename,length,label\n",
    }
    return write(root, {**lists, **media})


def make_nsynth(root: Path) -> Path:
    """Notes of three families in the splits valid and test."""

    def note(family: str, number: int, source: str, pitch: int, *qualities: str) -> dict[str, Any]:
        return {
            "note_str": f"{family}_{source}",
            "pitch": pitch,
            "velocity": 50,
            "sample_rate": 16000,
            "qualities_str": list(qualities),
            "instrument_family": number,
            "instrument_family_str": family,
            "instrument_source": {"acoustic": 0, "electronic": 1, "synthetic": 2}[source],
            "instrument_source_str": source,
        }

    test = {
        "synth_lead_synthetic_001-022-050": note("synth_lead", 9, "synthetic", 22, "dark", "long_release"),
        "bass_electronic_018-024-100": note("bass", 0, "electronic", 24),
        "guitar_acoustic_002-060-050": note("guitar", 3, "acoustic", 60, "bright"),
        "bass_synthetic_033-022-050": note("bass", 0, "synthetic", 22, "dark"),
    }
    valid = {"reed_acoustic_011-060-050": note("reed", 7, "acoustic", 60)}
    media = {
        "nsynth-test/audio/synth_lead_synthetic_001-022-050.wav": sound(15),
        "nsynth-test/audio/bass_electronic_018-024-100.wav": sound(16),
        "nsynth-test/audio/guitar_acoustic_002-060-050.wav": damaged(sound(17)),
        "nsynth-valid/audio/reed_acoustic_011-060-050.wav": sound(18),
    }
    tables = {"nsynth-test/examples.json": json.dumps(test), "nsynth-valid/examples.json": json.dumps(valid)}
    return write(root, {**tables, **media})


def make_kinetics(root: Path, version: int = 400) -> Path:
    """Three actions as the archives unpack, in folders of splits without classes; and one video that is replaced."""
    header = "label,youtube_id,time_start,time_end,split" + (",is_cc" if version == 400 else "")
    end = ",0" if version == 400 else ""
    train = [header, f'"riding a bike",train-_0001,4,14,train{end}', f"abseiling,replaced001,0,10,train{end}"]
    val = [
        header,
        f'"massaging person\'s head",valid__0001,59,69,val{end}',
        f"abseiling,-valid00002,137,147,val{end}",
        f"abseiling,brokenclip0,7,17,val{end}",
        f'"riding a bike",gone0000001,1,11,val{end}',
    ]
    media = {
        "train/train-_0001_000004_000014.mp4": video(13),
        "train/replaced001_000000_000010.mp4": damaged(video(14)),
        "replacement/replacement_for_corrupted_k400/replaced001_000000_000010.mp4": video(15),
        "val/valid__0001_000059_000069.mp4": video(16),
        "val/abseiling/-valid00002_000137_000147.mp4": video(17),
        "val/brokenclip0_000007_000017.mp4": damaged(video(18)),
    }
    tables = {"annotations/train.csv": lines(*train), "annotations/val.csv": lines(*val)}
    return write(root, {**tables, **media})


def make_ucf101(root: Path) -> Path:
    """Three actions and the lists of the first split."""
    lists = {
        "classInd.txt": "1 ApplyEyeMakeup\r\n2 Archery\r\n3 YoYo\r\n",
        "trainlist01.txt": "ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01.avi 1\r\nArchery/v_Archery_g08_c01.avi 2\r\n",
        "testlist01.txt": lines(
            "ApplyEyeMakeup/v_ApplyEyeMakeup_g01_c01.avi",
            "Archery/v_Archery_g01_c01.avi",
            "YoYo/v_YoYo_g01_c01.avi",
            "YoYo/v_YoYo_g01_c02.avi",
        ),
    }
    media = {
        "UCF-101/ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01.avi": video(19, "avi"),
        "UCF-101/ApplyEyeMakeup/v_ApplyEyeMakeup_g01_c01.avi": video(20, "avi"),
        "UCF-101/Archery/v_Archery_g08_c01.avi": video(21, "avi", False),
        "UCF-101/YoYo/v_YoYo_g01_c01.avi": video(22, "avi", False),
        "UCF-101/YoYo/v_YoYo_g01_c02.avi": damaged(video(23, "avi", False)),
    }
    return write(root, {**{f"ucfTrainTestlist/{name}": text for name, text in lists.items()}, **media})


def make_hmdb51(root: Path) -> Path:
    """Two actions and the lists of two splits."""
    lists = {
        "brush_hair_test_split1.txt": lines(
            "#20_Hair_brush_hair_u_nm_np1_ba_goo_0.avi 1 ", "April_brush_hair_0.avi 2 "
        ),
        "brush_hair_test_split2.txt": lines(
            "#20_Hair_brush_hair_u_nm_np1_ba_goo_0.avi 2 ", "April_brush_hair_0.avi 0 "
        ),
        "wave_test_split1.txt": lines(
            "Good;_wave_u_nm_np1_fr_med_0.avi 2 ",
            "damaged_wave_u_nm_np1_fr_med_0.avi 2 ",
            "gone_wave_u_nm_np1_fr_med_0.avi 2 ",
            "unused_wave_u_nm_np1_fr_med_0.avi 0 ",
        ),
        "wave_test_split2.txt": lines("Good;_wave_u_nm_np1_fr_med_0.avi 1 "),
    }
    media = {
        "hmdb51_org/brush_hair/#20_Hair_brush_hair_u_nm_np1_ba_goo_0.avi": video(24, "avi", False),
        "hmdb51_org/brush_hair/April_brush_hair_0.avi": video(25, "avi", False),
        "hmdb51_org/wave/Good;_wave_u_nm_np1_fr_med_0.avi": video(26, "avi", False),
        "hmdb51_org/wave/damaged_wave_u_nm_np1_fr_med_0.avi": damaged(video(27, "avi", False)),
        "hmdb51_org/wave/unused_wave_u_nm_np1_fr_med_0.avi": video(28, "avi", False),
    }
    return write(root, {**{f"testTrainMulti_7030_splits/{name}": text for name, text in lists.items()}, **media})


def make_vggsound(root: Path) -> Path:
    """Three labels, one with a comma."""
    table = [
        '-a_b,1,"dog barking, whimpering",train',
        "cd,30,playing flute,test",
        'ef,0,"dog barking, whimpering",test',
        "damaged,20,playing flute,test",
        "gone,5,raining,test",
    ]
    media = {
        "media/-a_b_000001.mp4": video(29),
        "media/cd_000030.mp4": video(30),
        "media/ef_000000.mp4": video(31),
        "media/damaged_000020.mp4": damaged(video(32)),
    }
    return write(root, {"vggsound.csv": lines(*table), **media})


def make_dynamic_superb(root: Path, labels: Sequence[str] = ("happy", "angry", "happy")) -> Path:
    """An instance with three clips, one of which has lost its sound."""
    import pyarrow
    import pyarrow.parquet

    media = [{"bytes": sound(19 + index), "path": f"{index}.wav"} for index in range(2)]
    asked = "What emotion does the speaker show? The answer could be angry, happy or sad."
    columns = {
        "audio": [*media, {"bytes": None, "path": "gone.wav"}],
        "file": ["0.wav", "1.wav", "gone.wav"],
        "instruction": [asked] * 3,
        "label": list(labels),
    }
    (root / "data").mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(pyarrow.table(columns), root / "data/test-00000-of-00001.parquet")
    return root


def make_audiocaps(root: Path) -> Path:
    """Two clips of the test with five captions each, one of validation, with sound and picture."""
    header = "audiocap_id,youtube_id,start_time,caption"
    spans = {"-testtube_1": 30, "testtube002": 0, "damagedtube": 30, "gonetube001": 10}
    what = {"-testtube_1": "A dog barks", "testtube002": "Rain falls", "damagedtube": "Wind", "gonetube001": "A bell"}
    times = ("once", "twice", "three times", "again, and again", "for long")
    pairs = [(name, number) for name in spans for number in range(5)]
    captions = [f'"{what[name]}, {times[number]}"' for name, number in pairs]
    rows = [
        f"{place},{name},{spans[name]},{text}"
        for place, ((name, _), text) in enumerate(zip(pairs, captions, strict=True))
    ]
    media = {
        "media/-testtube_1_30.mp4": video(33),
        "media/testtube002_0.mp4": video(34),
        "media/damagedtube_30.mp4": damaged(video(35)),
        "media/validtube01_50.mp4": video(36),
    }
    tables = {"test.csv": lines(header, *rows), "val.csv": lines(header, "99,validtube01,50,a man speaks")}
    return write(root, {**tables, **media})


def make_clotho(root: Path) -> Path:
    """Two sounds of the evaluation, one of the development, five captions each."""
    header = "file_name," + ",".join(f"caption_{number}" for number in range(1, 6))

    def row(name: str, what: str) -> str:
        return f"{name}," + ",".join(f"{what} {number}" for number in range(1, 6))

    evaluation = [
        row("rain on a roof.wav", "rain"),
        row("damaged.wav", "hum"),
        row("gone.wav", "hiss"),
        row("a-b.wav", "birds"),
    ]
    media = {
        "development/steps.wav": sound(21),
        "evaluation/rain on a roof.wav": sound(22),
        "evaluation/damaged.wav": damaged(sound(23)),
        "evaluation/a-b.wav": sound(24),
    }
    tables = {
        "clotho_captions_development.csv": lines(header, row("steps.wav", "steps")),
        "clotho_captions_evaluation.csv": lines(header, *evaluation),
    }
    return write(root, {**tables, **media})


def make_valor(root: Path) -> Path:
    """Two videos of the test with a caption of what is both seen and heard."""
    names = {"aaaaaaaaaaa_10.000_20.000": "a man sings", "bbb_bbb-bbb_0.000_10.000": "a train passes and whistles"}
    entries = [{"video_id": name, "desc": text} for name, text in names.items()]
    entries += [{"video_id": "damaged_000_10.000", "desc": "x"}, {"video_id": "gone_000_10.000", "desc": "y"}]
    media = {f"media/{name}.mp4": video(37 + place) for place, name in enumerate(names)}
    media["media/damaged_000_10.000.mp4"] = damaged(video(39))
    return write(root, {"desc_test.json": json.dumps(entries), **media})


def make_msrvtt(root: Path) -> Path:
    """Videos of the test and of training with two captions each."""
    said = {"video7010": "a car", "video7011": "a cook", "video7012": "a dancer", "video7013": "a lake"}

    def table(names: Iterable[str], split: str) -> str:
        sentences = [
            {"caption": f"{said.get(name, 'people')}{end}", "video_id": name, "sen_id": place}
            for place, (name, end) in enumerate((name, end) for name in names for end in ("", " is shown"))
        ]
        videos = [
            {"video_id": name, "split": split, "start time": 1.0, "end time": 11.0, "category": 3} for name in names
        ]
        return json.dumps({"info": {}, "videos": videos, "sentences": sentences})

    media = {
        "media/TestVideo/video7010.mp4": video(40),
        "media/TestVideo/video7011.mp4": video(41, audible=False),
        "media/TestVideo/video7012.mp4": damaged(video(42)),
        "media/TrainValVideo/video0.mp4": video(43),
    }
    tables = {
        "train_val_videodatainfo.json": table(["video0"], "train"),
        "test_videodatainfo.json": table(list(said), "test"),
    }
    return write(root, {**tables, **media})


def make_vctk(root: Path) -> Path:
    """Sentences of two speakers, as of version 0.92."""
    said = {
        "p225/p225_001": "Please call Stella.",
        "p225/p225_002": "Ask her to bring these things.",
        "p226/p226_001": "Six spoons of fresh snow peas.",
        "p226/p226_002": "It is damaged.",
        "p226/p226_003": "It is gone.",
    }
    audio = [name for name in said if not name.endswith("_003")]
    media = {f"wav48_silence_trimmed/{name}_mic1.flac": flac(25 + place) for place, name in enumerate(audio)}
    media["wav48_silence_trimmed/p226/p226_002_mic1.flac"] = damaged(flac(28))
    return write(root, {**{f"txt/{name}.txt": f"{text}\n" for name, text in said.items()}, **media})


def make_audioset_strong(root: Path) -> Path:
    """Two clips of the evaluation set with events of two classes."""
    rows = [
        "segment_id|start_time_seconds|end_time_seconds|label",
        "evaltube_01_30000|0.1|0.3|/m/dog",
        "evaltube_01_30000|0.2|0.5|/m/rain",
        "-evaltube02_0|0.0|0.4|/m/rain",
        "damagedtube_20000|0.0|0.4|/m/rain",
        "gonetube001_5000|0.0|0.4|/m/dog",
    ]
    media = {
        "media/evaltube_01_30000.wav": sound(29),
        "media/-evaltube02_000000.mp4": video(44),
        "media/damagedtube_20.wav": damaged(sound(30)),
    }
    names = tabs("/m/dog|Dog", "/m/rain|Rain")
    tables = {"audioset_eval_strong.tsv": tabs(*rows), "mid_to_display_name.tsv": names}
    return write(root, {**tables, **media})


def make_desed(root: Path) -> Path:
    """The public evaluation set: two clips with events, and one without."""
    rows = [
        "filename|onset|offset|event_label",
        "Y1.wav|0.1|0.4|Alarm_bell_ringing",
        "Y1.wav|0.2|0.5|Speech",
        "Y2.wav|0.0|0.3|Dog",
        "Y3.wav|||",
        "damaged.wav|0.0|0.3|Dog",
        "gone.wav|0.0|0.3|Speech",
    ]
    media = {f"audio/eval/public/Y{number}.wav": sound(30 + number) for number in (1, 2, 3)}
    media["audio/eval/public/damaged.wav"] = damaged(sound(34))
    return write(root, {"metadata/eval/public.tsv": tabs(*rows), **media})


def make_urbansed(root: Path) -> Path:
    """Soundscapes of the test and of training."""
    annotations = {
        "test/soundscape_test_0": tabs("0.0|0.3|car_horn", "0.2|0.5|dog_bark"),
        "test/soundscape_test_1": tabs("0.1|0.4|siren"),
        "test/soundscape_test_damaged": tabs("0.1|0.4|siren"),
        "test/soundscape_test_gone": tabs("0.1|0.4|siren"),
        "train/soundscape_train_0": "",
    }
    media = {
        "audio/test/soundscape_test_0.wav": sound(35),
        "audio/test/soundscape_test_1.wav": sound(36),
        "audio/test/soundscape_test_damaged.wav": damaged(sound(37)),
        "audio/train/soundscape_train_0.wav": sound(38),
    }
    return write(root, {**{f"annotations/{name}.txt": text for name, text in annotations.items()}, **media})


#: The miniatures by the name of their reader.
EVALUATION_SETS: Mapping[str, Callable[[Path], Path]] = {
    "ActivityNetCaptions": make_activitynet,
    "DiDeMo": make_didemo,
    "DynamicSUPERB": make_dynamic_superb,
    "ESC50": make_esc50,
    "GTZAN": make_gtzan,
    "HMDB51": make_hmdb51,
    "Kinetics": make_kinetics,
    "MSVD": make_msvd,
    "NSynth": make_nsynth,
    "UCF101": make_ucf101,
    "UrbanSound8K": make_urbansound8k,
}


#: Those of sets that have further miniatures, without media, where their readers are tested.
FURTHER_SETS: Mapping[str, Callable[[Path], Path]] = {
    "AudioCaps": make_audiocaps,
    "AudioSetStrong": make_audioset_strong,
    "Clotho": make_clotho,
    "DESED": make_desed,
    "MSRVTT": make_msrvtt,
    "URBANSED": make_urbansed,
    "VALOR": make_valor,
    "VCTK": make_vctk,
    "VGGSound": make_vggsound,
}


def pack(root: Path, folders: Iterable[str], archive: Callable[[Path, dict[str, bytes]], None], name: str) -> Path:
    """Puts the files of some folders of a set into an archive, and deletes them."""
    members: dict[str, bytes] = {}
    for folder in folders:
        for path in sorted((root / folder).rglob("*")):
            if path.is_file():
                members[path.relative_to(root).as_posix()] = path.read_bytes()
                path.unlink()
    archive(root / name, members)
    return root
