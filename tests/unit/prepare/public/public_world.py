"""Published annotation files in small: a few rows of each format, made up here, and the tool that converts them."""

import importlib.util
import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import pytest

from lavender.runtime.errors import LavenderError

ROOT = Path(__file__).parents[4]
Files = dict[str, Any]  # name → text, or what is written as JSON
Convert = Callable[..., "Done"]


class Done(NamedTuple):
    """What the tool did: its exit code, and what it said."""

    code: int
    out: str
    err: str


@pytest.fixture(scope="session")
def tool() -> ModuleType:
    sys.path.insert(0, str(ROOT / "_tools"))
    try:
        path = ROOT / "_tools" / "convert_annotations.py"
        spec = importlib.util.spec_from_file_location("tool_convert_annotations", path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module
    finally:
        sys.path.remove(str(ROOT / "_tools"))


@pytest.fixture
def convert(tool: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> Convert:
    """Lays the files into `given` and converts them to `made`, as a user's command does."""

    def do(name: str, files: Files, *options: str) -> Done:
        lay(tmp_path / "given", files)
        words = ["convert_annotations.py", name, str(tmp_path / "given"), "--output", str(tmp_path / "made"), *options]
        monkeypatch.setattr(sys, "argv", words)
        fault = ""
        try:
            code = tool.main()
        except SystemExit as ended:
            code = ended.code
        except LavenderError as error:
            code, fault = 2, f"{error}\n"
        said = capsys.readouterr()
        return Done(code, said.out, said.err + fault)

    return do


def lay(folder: Path, files: Files) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        data = content if isinstance(content, str | bytes) else json.dumps(content)
        (folder / name).write_bytes(data if isinstance(data, bytes) else data.encode())


def made(tmp_path: Path, name: str) -> Any:
    return json.loads((tmp_path / "made" / name).read_text())


def tsv(*rows: str) -> str:
    """Rows whose cells are written with | between them."""
    return "".join(row.replace("|", "\t") + "\n" for row in rows)


MSRVTT: Files = {
    "train_val_videodatainfo.json": {
        "info": {"year": "2016"},
        "videos": [
            {"category": 9, "video_id": "video0", "split": "train", "id": 0},
            {"category": 1, "video_id": "video1", "split": "train", "id": 1},
            {"category": 1, "video_id": "video6513", "split": "validate", "id": 6513},
        ],
        "sentences": [
            {"caption": "a man sings", "video_id": "video0", "sen_id": 0},
            {"caption": "a dog runs", "video_id": "video1", "sen_id": 1},
            {"caption": 'a woman says "hi"', "video_id": "video0", "sen_id": 2},
            {"caption": "two cars race", "video_id": "video6513", "sen_id": 3},
        ],
    },
    "test_videodatainfo.json": {
        "videos": [{"video_id": f"video{n}", "split": "test", "id": n} for n in (7010, 7011)],
        "sentences": [
            {"caption": "a cat sleeps", "video_id": "video7010", "sen_id": 4},
            {"caption": "a boy swims", "video_id": "video7011", "sen_id": 5},
        ],
    },
    "MSRVTT_JSFUSION_test.csv": 'key,vid_key,video_id,sentence\nret0,msr7010,video7010,"a cat, sleeping"\n',
    "MSRVTT_train.7k.csv": "video_id\nvideo0\nvideo1\nvideo6513\n",
    "MSRVTT_train.9k.csv": "video_id\nvideo0\nvideo1\nvideo6513\nvideo7011\n",
}
MSVD: Files = {
    "AllVideoDescriptions.txt": (
        "# The corpus of descriptions\n\nThe first word names the video\n"
        "-4ws_uPCj_5_15 a squirrel eats a nut\nabc_1_2 a man cooks\n-4ws_uPCj_5_15 an animal eats\n"
        "de_3_4 a girl dances\n"
    ),
    "train_list.txt": "-4ws_uPCj_5_15\n",
    "val_list.txt": "abc_1_2\n",
    "test_list.txt": "de_3_4\n",
}
MAPPING = "-4ws_uPCj_5_15 vid1\nabc_1_2 vid1201\nde_3_4 vid1301\n"
MSVD_CSV = (
    "VideoID,Start,End,WorkerID,Source,AnnotationTime,Language,Description\n"
    "-4ws_uPCj,5,15,588702,unverified,55,English,a squirrel eats a nut\n"
    '-4ws_uPCj,5,15,588703,clean,20,English,"a squirrel, eating"\n'
    "-4ws_uPCj,5,15,588704,clean,20,German,ein Nager\n"
    "abc,1,2,588702,clean,55,English,a man cooks\nabc,1,2,588702,clean,55,English,\nde,3,4,1,clean,5,English,a girl\n"
)


def questions(split: str, *rows: tuple[int, str, str]) -> Files:
    entries = [
        {"answer": answer, "id": number, "category_id": 3, "question": question, "video_id": video}
        for number, (video, question, answer) in enumerate(rows)
    ]
    return {f"{split}_qa.json": entries}


XU_QA: Files = (
    questions("train", (1, "who eats?", "squirrel"), (1, "what is eaten?", "nut"), (1, "who sits?", "squirrel"))
    | questions("val", (1201, "who cooks?", "man"))
    | questions("test", (1301, "who dances?", "little girl"), (1301, "what does she do?", "squirrel"))
)
CHOICE_HEAD = "gif_name|question|a1|a2|a3|a4|a5|answer|vid_id|key"
TGIF_CHOICE = {
    split: tsv(
        CHOICE_HEAD,
        f'tumblr_{split}1_250|What does the cat do 3 times ?|jump|run|wave a hand|say "no"|nod|{answer}|ACTION4|26',
        f'tumblr_{split}2_400|What does the man do 2 times ?|sit|lie|"say ""yes"""|bow|blink|0|ACTION5|27',
    )
    for split, answer in (("Train", 4), ("Test", 1))
}
TGIF_ACTION: Files = {f"{split}_action_question.csv": text for split, text in TGIF_CHOICE.items()}
TGIF_TRANSITION: Files = {f"{split}_transition_question.csv": text for split, text in TGIF_CHOICE.items()}
TGIF_FRAME: Files = {
    f"{split}_frameqa_question.csv": tsv(
        "gif_name|question|answer|type|vid_id|key|description",
        f"tumblr_{split}1_250|how many dogs run ?|two|1|FRAMEQA3|25|two dogs run .",
        f"tumblr_{split}1_250|what is the color of the hat ?|red|2|FRAMEQA4|25|a red hat .",
    )
    for split in ("Train", "Test")
}
CLIPS = [f"000{n}_A_Film_00.0{n}.51.926-00.0{n}.54.129" for n in range(1, 4)]
_TIMES = "00.01.51.926|00.01.54.129|00.01.51.926|00.01.54.129"
LSMDC: Files = {
    "LSMDC16_annos_training.csv": tsv(
        f'{CLIPS[0]}|{_TIMES}|SOMEONE looks up: "Go!"', f'{CLIPS[0]}|{_TIMES}|"No," she says.'
    ),
    "LSMDC16_annos_val.csv": tsv(f"{CLIPS[1]}|{_TIMES}|He runs."),
    "LSMDC16_challenge_1000_publictect.csv": tsv(f"{CLIPS[2]}|||00.01.51.926|00.01.54.129|She sits."),
}
_FIVE = "It is right.|wrong 1|wrong 2|wrong 3|wrong 4"
LSMDC_MC: Files = {
    "LSMDC16_multiple_choice_train.csv": tsv(*[f"{CLIPS[0]}|{_TIMES}|{_FIVE}"] * 8),
    "LSMDC16_multiple_choice_valid.csv": tsv(f"{CLIPS[1]}|{_TIMES}|{_FIVE}"),
    "LSMDC16_multiple_choice_test_randomized.csv": tsv(f"{CLIPS[2]}|{_TIMES}|w|It is right.|w2|w3|w4|2"),
}
LSMDC_FIB: Files = {
    "LSMDC16_annos_training_FIB.csv": tsv(
        f"{CLIPS[0]}|{_TIMES}|She opens the door.|She _____ the door.|opens",
        f"{CLIPS[0]}|{_TIMES}|She opens the door.|She opens the _____.|door",
    ),
    "LSMDC16_annos_val_FIB.csv": tsv(f"{CLIPS[1]}|{_TIMES}|He runs.|He _____.|runs"),
    "LSMDC16_annos_test_FIB.csv": tsv(f"{CLIPS[2]}|{_TIMES}|They sit down.|_____ sit down.|They"),
}
DIDEMO: Files = {
    f"{split}_data.json": [
        {"annotation_id": 1, "description": "a dog runs", "times": [[0, 0]], "video": f"1@N0_{split}_a.1.avi"},
        {"annotation_id": 2, "description": "a car stops", "times": [[1, 2]], "video": f"2@N0_{split}_b.mov"},
        {"annotation_id": 3, "description": "it sits", "times": [[3, 3]], "video": f"1@N0_{split}_a.1.avi"},
    ]
    for split in ("train", "val", "test")
}
WEBVID: Files = {
    "results_2M_train.csv": (
        "videoid,contentUrl,duration,page_dir,name\n"
        '21179416,https://x.org/a.mp4,PT00H00M11S,006001_006050,"Aerial shot, ""winter"" forest"\n'
        "5629184,https://x.org/b.mp4,PT00H00M29S,071501_071550,Senior couple\n"
    ),
    "results_2M_val.csv": "videoid,contentUrl,duration,page_dir,name\n1010,https://x.org/c.mp4,PT1S,0_1,Été à la mer\n",
}
CC3M: Files = {
    "Train_GCC-training.tsv": tsv('a "very" typical bus station|http://x.org/1', "a café|http://x.org/2"),
    "Validation_GCC-1.1.0-Validation.tsv": tsv("author : a life|http://x.org/3"),
}
MSRVTT_MC: Files = {
    "MSR_MC_test.csv": tsv(
        "key|vid_key|a1|a2|a3|a4|a5|answer",
        "MC0|msr7010|a cat sleeps|a dog|a car|a boy|a man|0",
        "MC1|msr7011|a|b|c|d|e|4",
    )
}
EVERY: dict[str, Files] = {
    "msrvtt": MSRVTT,
    "msrvtt-qa": XU_QA,
    "msrvtt-mc": MSRVTT_MC,
    "msvd": MSVD,
    "msvd-qa": {**XU_QA, "youtube_mapping.txt": MAPPING},
    "tgif-action": TGIF_ACTION,
    "tgif-transition": TGIF_TRANSITION,
    "tgif-frame": TGIF_FRAME,
    "lsmdc": LSMDC,
    "lsmdc-mc": LSMDC_MC,
    "lsmdc-fib": LSMDC_FIB,
    "didemo": DIDEMO,
    "webvid": WEBVID,
    "cc3m": CC3M,
}
