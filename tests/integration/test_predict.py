"""The command line for one's own videos, and the index of a folder of them."""

import fcntl
import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from lavender import Predictor
from lavender.inference.index import CLIPS, FEATURES, GalleryIndex, build_index
from lavender.predict import main
from lavender.runtime.errors import DataError
from tests.conftest import ROOT
from tests.unit.prepare.clip_world import write_video
from tests.warm import warm


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    for number in range(3):
        write_video(tmp_path / "clips" / f"c{number}.mp4", grey=40 * number)
    return tmp_path / "clips"


@pytest.fixture
def run(ask) -> Path:
    """A run's folder, of a model that can do everything."""
    return ask("main_qaoe_mlm.py", "msvd-qa", "--size_epoch", 1, "--lr", 1e-3).check_passed().folder


def test_the_commands(run: Path, clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    def told(*words: object) -> list[dict]:
        command, *rest = map(str, words)
        assert main([command, *rest, "--path_ckpt", str(run), "--device", "cpu", "--json"]) == 0
        return [json.loads(line) for line in capsys.readouterr().out.splitlines()]

    predictor, clip = Predictor.from_pretrained(run, device="cpu"), clips / "c1.mp4"
    (answer,) = told("answer", clip, "who", "--k", 3)
    wanted = predictor.answer(clip, "who", k=3)
    assert [(one["text"], one["probability"]) for one in answer["guesses"]] == [
        (one.text, pytest.approx(one.probability)) for one in wanted.guesses
    ]
    captions = told("caption", clip, clips / "c2.mp4", "--num_beams", 2)
    assert [one["video"] for one in captions] == ["c1.mp4", "c2.mp4"]
    (choice,) = told("choose", clip, "who", "a", "b", "c")
    assert sorted(one["text"] for one in choice["guesses"]) == ["a", "b", "c"]
    (match,) = told("match", clip, "a dog", "a man")
    assert sorted(one["text"] for one in match["guesses"]) == ["a dog", "a man"]
    (clips / "broken.mp4").write_bytes(b"no video" * 50)
    words = ["index", str(clips), "-o", str(tmp_path / "i"), "--path_ckpt", str(run), "--device", "cpu"]
    assert main(words) == 1
    assert "broken.mp4" in capsys.readouterr().err
    (found,) = told("search", tmp_path / "i", "a dog", "--k", 2)
    direct = predictor.search("a dog", sorted(clips.glob("c*.mp4")), k=2)
    assert [Path(hit["video"]).name for hit in found["hits"]] == [hit.video for hit in direct.hits]
    assert [hit["score"] for hit in found["hits"]] == pytest.approx([hit.score for hit in direct.hits], abs=1e-2)


def test_an_index_goes_on_where_it_was_stopped(run: Path, clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    predictor, folder = Predictor.from_pretrained(run, device="cpu"), tmp_path / "index"
    encode, encoded = predictor.features, []

    def features(video):
        if isinstance(video, str):
            encoded.append(Path(video).name)
            if len(encoded) == 3:
                raise KeyboardInterrupt
        return encode(video)

    monkeypatch.setattr(predictor, "features", features)
    with pytest.raises(KeyboardInterrupt):
        build_index(predictor, clips, folder)
    with open(folder / CLIPS, "ab") as lines, open(folder / FEATURES, "ab") as stored:  # killed within a clip
        lines.write(b'{"path": "half')
        stored.write(b"xyz")
    assert build_index(predictor, clips, folder) == []
    assert encoded == ["c0.mp4", "c1.mp4", "c2.mp4", "c2.mp4"]
    write_video(clips / "c1.mp4", frames=20, grey=100)
    (clips / "c0.mp4").unlink()
    build_index(predictor, clips, folder)
    assert encoded[4:] == ["c1.mp4"]
    index = GalleryIndex(folder)
    assert sorted(Path(entry.path).name for entry in index.clips) == ["c1.mp4", "c2.mp4"]
    for entry, row in zip(index.clips, index.features(), strict=True):
        assert row == pytest.approx(encode(entry.path), abs=2e-2)


def test_two_that_write_one_index(run: Path, clips: Path, tmp_path: Path):
    predictor, folder = Predictor.from_pretrained(run, device="cpu"), tmp_path / "index"
    folder.mkdir()
    with open(folder / CLIPS, "ab") as lines:  # of the other one
        fcntl.flock(lines, fcntl.LOCK_EX)
        with pytest.raises(DataError, match=r"index: another process is writing it"):
            build_index(predictor, clips, folder)
    assert build_index(predictor, clips, folder) == []
    assert len(GalleryIndex(folder).clips) == 3


def test_a_shortlist_and_a_sheet(run: Path, clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    index, words = str(tmp_path / "index"), ["--path_ckpt", str(run), "--device", "cpu"]
    assert main(["index", str(clips), "-o", index, *words]) == 0
    capsys.readouterr()
    assert main(["search", index, "a dog", "--shortlist", "2", *words]) == 2
    assert "index --captions" in capsys.readouterr().err
    assert main(["index", str(clips), "-o", index, "--captions", *words]) == 0
    lines = [json.loads(line) for line in (tmp_path / "index" / CLIPS).read_text().splitlines()]
    for line, caption in zip(lines[3:], ["a red dog", "a cat", "a blue car"], strict=True):
        line["caption"] = caption
    (tmp_path / "index" / CLIPS).write_text("".join(json.dumps(line) + "\n" for line in lines))
    capsys.readouterr()
    sheet = tmp_path / "hits.png"
    (clips / "c2.mp4").unlink()
    assert (
        main(["search", index, "a blue dog", "zebra", "--json", "--shortlist", "2", "--sheet", str(sheet), *words]) == 0
    )
    said = capsys.readouterr()
    assert str(sheet) in said.err
    with Image.open(sheet) as picture:
        assert picture.format == "PNG"
    known, unknown = (json.loads(line)["hits"] for line in said.out.splitlines())
    assert {Path(hit["video"]).name for hit in known} == {"c0.mp4", "c2.mp4"}
    assert len(unknown) == 2  # no caption shares a word with it
    everything = Predictor.from_pretrained(run, device="cpu")
    (full,) = GalleryIndex(Path(index)).search(everything, ["a blue dog"])
    scores = {hit.video: hit for hit in full.hits}
    for hit in known:  # a shortlist changes which clips are matched, and no score
        assert hit["score"] == pytest.approx(scores[hit["video"]].score, abs=1e-5)
        assert hit["number"] == scores[hit["video"]].number
        assert 0 < hit["probability"] < 1
    assert known[0]["score"] >= known[1]["score"]


def test_bad_input(run: Path, clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    words = ["--path_ckpt", str(run), "--device", "cpu"]
    for command, said in (
        (["answer", str(tmp_path / "gone.mp4"), "who"], "gone.mp4"),
        (["search", str(tmp_path / "none"), "a dog"], "none"),
        (["index", str(tmp_path / "nothing"), "-o", str(tmp_path / "i")], "nothing"),
        (["choose", str(clips / "c0.mp4"), "who", "one"], "two or more"),
    ):
        assert main([*command, *words]) == 2
        error = capsys.readouterr().err
        assert error.startswith("error: ")
        assert said in error
    predictor = Predictor.from_pretrained(run, device="cpu")
    build_index(predictor, clips, tmp_path / "index")
    head = json.loads((tmp_path / "index" / "index.json").read_text())
    (tmp_path / "index" / "index.json").write_text(json.dumps(head | {"weights": "other"}))
    with pytest.raises(DataError, match="another checkpoint"):
        GalleryIndex(tmp_path / "index").search(predictor, ["a dog"])
    (tmp_path / "index" / "index.json").write_text("{}")
    with pytest.raises(DataError, match="damaged"):
        GalleryIndex(tmp_path / "index")


def test_a_question_does_not_wait_for_what_it_does_not_need(run: Path, clips: Path):
    words = ["answer", str(clips / "c0.mp4"), "who", "--path_ckpt", str(run), "--device", "cpu"]
    code = f"import sys; from lavender.predict import main; assert main({words}) == 0; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert not {"torch._dynamo", "transformers", "bm25s", "scipy"} & set(done.stdout.split())


def test_help_needs_no_model():
    code = "import sys, runpy; sys.argv = ['x', '--help']; runpy.run_module('lavender.predict', run_name='__main__')"
    code = f"try:\n    {code}\nfinally:\n    assert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "search" in done.stdout


def test_a_reader_that_has_seen_enough(run: Path, clips: Path):
    """As `… | head -0` is."""
    words = ["answer", str(clips / "c0.mp4"), "who", "--path_ckpt", str(run), "--device", "cpu"]
    process = subprocess.Popen(
        [*warm().command, "-m", "lavender.predict", *words], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    process.stdout.close()
    _, said = process.communicate(timeout=300)
    assert (process.returncode, said) == (0, b"")
