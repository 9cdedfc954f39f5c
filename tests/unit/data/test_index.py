import collections
import contextlib
import logging
import pickle
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lavender.data.index import VideoIndex, load_id2lineidx, load_plain_pickle, write_id2lineidx
from lavender.data.tsv import TSVReader, TSVWriter
from lavender.runtime.errors import DataError


def write_tsv(path: Path, *ids: str) -> Path:
    with TSVWriter(path) as writer:
        for number, video_id in enumerate(ids):
            writer.write([video_id, f"/9j/{number}"])
    return path


class Evil:
    """Touches a file when it is unpickled."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


@pytest.mark.parametrize("protocol", [0, 2, 5])
def test_a_plain_index_is_loaded(tmp_path: Path, protocol: int):
    path = tmp_path / "x.pkl"
    path.write_bytes(pickle.dumps({"vid0": 0, "vid1": 2**40}, protocol))
    assert load_id2lineidx(path) == {"vid0": 0, "vid1": 2**40}


def test_code_in_a_pickle_is_refused_by_name_and_not_run(tmp_path: Path):
    path, touched = tmp_path / "x.pkl", tmp_path / "touched"
    path.write_bytes(pickle.dumps({"vid0": Evil(touched)}))
    with pytest.raises(DataError, match=r"x\.pkl holds a pathlib\S*\.(Path|PosixPath|getattr)|builtins\.getattr"):
        load_id2lineidx(path)
    assert not touched.exists()
    path.write_bytes(b"cos\nsystem\n(S'touch " + bytes(touched) + b"'\ntR.")
    with pytest.raises(DataError, match=r"holds a os\.system"):
        load_id2lineidx(path)
    assert not touched.exists()


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (collections.OrderedDict(a=1), r"holds a collections\.OrderedDict"),
        ([("a", 1)], "holds a list, not a dict"),
        ({"a": 1.5}, "'a' is str → float"),
        ({"a": True}, "'a' is str → bool"),
        ({"a": [1]}, "'a' is str → list"),
        ({1: 1}, "entry 1 is int → int"),
        ({"a": b"1"}, "'a' is str → bytes"),
        ({"a\nb": 1.5}, r"'a\\nb' is str → float"),
        ({"v" * 10**6: 1.5}, r"entry 'v{20,80}\.\.\.v{20,80}' is str → float"),
        ({"a": 10**6000}, "'a' is a whole number of about 6,001 digits"),
        ({"a": 2**63}, "'a' is 9223372036854775808"),
    ],
)
def test_anything_but_str_to_int_is_refused(tmp_path: Path, content, complaint: str):
    path = tmp_path / "x.pkl"
    path.write_bytes(pickle.dumps(content))
    with pytest.raises(DataError, match=complaint):
        load_id2lineidx(path)


def test_a_pickled_number_that_python_does_not_read(tmp_path: Path):
    path = tmp_path / "x.pkl"
    path.write_bytes(b"(dVa\nI" + b"9" * 5000 + b"\ns.")
    with pytest.raises(DataError, match=rf"^{path} "):
        load_id2lineidx(path)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200, deadline=None)
@given(st.one_of(st.binary(max_size=60), st.integers(0, 200)))
def test_no_bytes_raise_anything_but_data_error(tmp_path: Path, junk: bytes | int):
    whole = pickle.dumps({f"video{i}": i * 1000 for i in range(10)})
    path = tmp_path / "x.pkl"
    path.write_bytes(junk if isinstance(junk, bytes) else whole[:junk])
    with contextlib.suppress(DataError):  # any other exception fails the test
        assert type(load_plain_pickle(path)) is dict


def test_index_written_by_the_tool_finds_rows(tmp_path: Path):
    tsv = write_tsv(tmp_path / "img_toy.tsv", "video1.mp4", "clips/video2.mp4", "video3", "a.b.mp4")
    pkl = tmp_path / "img_toy.id2lineidx.pkl"
    assert write_id2lineidx(tsv, pkl) == 4
    reader = TSVReader(tsv)
    assert pickle.loads(pkl.read_bytes()) == dict(
        zip(["video1", "clips/video2", "video3", "a.b"], reader.offsets.tolist(), strict=True)
    )
    index = VideoIndex(tsv)
    assert len(index) == 4
    for name, row in {"video1": 0, "video1.mp4": 0, "video2.avi": 1, "video3": 2, "a.b": 3, "a.b.mp4": 3}.items():
        assert name in index
        assert reader.row_at(index.offset(name))[1] == f"/9j/{row}"


def test_an_unknown_video_is_named_with_the_file(tmp_path: Path):
    tsv = write_tsv(tmp_path / "img_toy.tsv", "video1")
    index = VideoIndex(tsv)
    assert "video9" not in index
    with pytest.raises(DataError, match=r"img_toy\.tsv has no video 'video9'"):
        index.offset("video9")


def test_missing_pickle_is_built_and_announced(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    tsv = write_tsv(tmp_path / "img_toy.tsv", "video1", "video2.mp4")
    with caplog.at_level(logging.INFO, "lavender.data"):
        index = VideoIndex(tsv)
    assert "img_toy.id2lineidx.pkl is missing" in caplog.text
    assert index.offset("video2") == TSVReader(tsv).offsets[1]


def test_a_given_pickle_wins(tmp_path: Path):
    tsv = write_tsv(tmp_path / "img_toy.tsv", "video1")
    pkl = tmp_path / "other.pkl"
    pkl.write_bytes(pickle.dumps({"alias": 0}))
    index = VideoIndex(tsv, pkl)
    assert index.offset("alias") == 0
    with pytest.raises(DataError, match=r"other\.pkl has no video"):
        index.offset("video1")


def test_of_a_repeated_id_the_last_row_counts(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    tsv = write_tsv(tmp_path / "img_toy.tsv", "video1", "video2", "video1")
    assert TSVReader(tsv).row_at(VideoIndex(tsv).offset("video1"))[1] == "/9j/2"
    assert "1 rows repeat" in caplog.text


def test_ids_with_dots_and_folders_are_different_videos(tmp_path: Path):
    names = [
        "clip.1",
        "clip.2",
        "S01E01/clip_00",
        "S01E02/clip_00",
        "cook_1.0.mp4",
        "cook_1.5.MP4",
        "two.mp4",
        "two.avi",
    ]
    tsv = write_tsv(tmp_path / "img_toy.tsv", *names)
    assert write_id2lineidx(tsv, tmp_path / "img_toy.id2lineidx.pkl") == len(names)
    for index in (VideoIndex(tsv), VideoIndex(tsv, tmp_path / "img_toy.id2lineidx.pkl")):
        assert [index.offset(name) for name in names] == TSVReader(tsv).offsets.tolist()
        assert index.offset("cook_1.5") == index.offset("cook_1.5.mp4") == TSVReader(tsv).offsets[5]
        assert not any(name in index for name in ("clip", "clip.3", "S01E03/clip_00", "cook_1.7.mp4", "cook_1"))
        with pytest.raises(DataError, match=r"'clip_00' could be 'S01E01/clip_00' or 'S01E02/clip_00'"):
            index.offset("clip_00")


@pytest.mark.parametrize(
    ("offsets", "names"),
    [
        ({"film_00": 0}, "film_00"),  # cut at a dot
        ({"old": 0}, "old"),  # of another file
        ({"film_00.10.5": 3}, "no row starts at byte 3"),
        ({"film_00.10.5": 0}, "film_00.20.5"),  # a video that came later
    ],
)
def test_an_index_that_does_not_fit_is_not_used(tmp_path: Path, caplog, offsets: dict, names: str):
    tsv = write_tsv(tmp_path / "img_toy.tsv", "film_00.10.5", "film_00.20.5")
    (tmp_path / "img_toy.id2lineidx.pkl").write_bytes(pickle.dumps(offsets))
    with caplog.at_level(logging.INFO, "lavender.data"):
        index = VideoIndex(tsv)
    assert "img_toy.id2lineidx.pkl does not fit" in caplog.text
    assert names in caplog.text
    assert index.offset("film_00.20.5.mp4") == TSVReader(tsv).offsets[1]
    assert "film_00.30.9" not in index
