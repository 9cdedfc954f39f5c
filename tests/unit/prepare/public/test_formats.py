"""What is made of each published format."""

from pathlib import Path

import pytest

from lavender.data.tsv import TSVReader
from tests.unit.prepare.public import public_world as world
from tests.unit.prepare.public.public_world import CLIPS, Convert, made


def pairs(items: list[dict]) -> list[tuple]:
    return [(item["video"], item["caption"]) for item in items]


def test_msrvtt_captions_have_the_official_splits(convert: Convert, tmp_path: Path):
    done = convert("msrvtt", world.MSRVTT)
    assert (done.code, done.err) == (0, "")
    folder = tmp_path / "made" / "MSRVTT-v2"
    for split, videos in (
        ("train", ["video0", "video1"]),
        ("val", ["video6513"]),
        ("test", ["video7010", "video7011"]),
    ):
        assert "img: ../img_msrvtt.tsv\n" in (folder / f"{split}_32frames.yaml").read_text()
        reader = TSVReader(folder / f"{split}_32frames.caption.tsv")
        assert [reader.video_id(number) for number in range(len(reader))] == videos
    assert '"a woman says \\"hi\\""' in (folder / "train_32frames.caption.tsv").read_text()
    assert "2 train, 1 val, 2 test videos" in done.out
    assert "3 train, 1 val, 2 test captions" in done.out


@pytest.mark.parametrize("lists", [True, False])
def test_msrvtt_retrieval_tests_on_1k_a(convert: Convert, tmp_path: Path, lists: bool):
    files = {name: text for name, text in world.MSRVTT.items() if lists or "train." not in name}
    training = [
        ("video0", "a man sings"),
        ("video0", 'a woman says "hi"'),
        ("video1", "a dog runs"),
        ("video6513", "two cars race"),
    ]
    done = convert("msrvtt", files)
    assert ("train.7k.csv is not there" in done.out) is not lists
    found = made(tmp_path, "txt_msrvtt-retrieval.json")
    assert pairs(found["train"]) == training
    assert pairs(found["val"]) == [("video7011", "a boy swims")], "neither trained nor tested"
    assert pairs(found["test"]) == [("video7010", "a cat, sleeping")]

    convert("msrvtt", files, "--split", "9k", "--overwrite")
    found = made(tmp_path, "txt_msrvtt-retrieval.json")
    assert pairs(found["train"]) == [*training, ("video7011", "a boy swims")]
    assert (found["val"], pairs(found["test"])) == ([], [("video7010", "a cat, sleeping")])

    convert("msrvtt", files, "--split", "full", "--overwrite")
    found = made(tmp_path, "txt_msrvtt-retrieval.json")
    assert pairs(found["val"]) == [("video6513", "two cars race")]
    assert pairs(found["test"]) == [("video7010", "a cat sleeps"), ("video7011", "a boy swims")]


def test_msrvtt_in_one_file(convert: Convert, tmp_path: Path):
    convert("msrvtt", world.MSRVTT)
    expected = made(tmp_path, "txt_msrvtt-retrieval.json")
    both = [world.MSRVTT[name] for name in ("train_val_videodatainfo.json", "test_videodatainfo.json")]
    whole = {key: [*both[0][key], *both[1][key]] for key in ("videos", "sentences")}
    for name in ("train_val_videodatainfo.json", "test_videodatainfo.json"):
        (tmp_path / "given" / name).unlink()
    assert convert("msrvtt", {"MSRVTT_data.json": whole}, "--overwrite").code == 0
    assert made(tmp_path, "txt_msrvtt-retrieval.json") == expected


def test_msrvtt_without_the_official_test_file(convert: Convert, tmp_path: Path):
    files = {name: text for name, text in world.MSRVTT.items() if name != "test_videodatainfo.json"}
    done = convert("msrvtt", files)
    assert done.code == 0
    assert "--test_yaml ''" in done.out
    assert not (tmp_path / "made" / "MSRVTT-v2" / "test_32frames.yaml").exists()
    done = convert("msrvtt", files, "--split", "9k", "--overwrite")
    assert (done.code, "video7011" in done.err, "test_videodatainfo.json" in done.err) == (2, True, True)


@pytest.mark.parametrize(
    "files",
    [
        world.MSRVTT_MC,
        {name.upper(): text for name, text in world.MSRVTT_MC.items()},
        {
            "mc_test.jsonl": '{"qid": 0, "clip_name": "video7010", "options": ["a cat sleeps", "a dog", "a car", '
            '"a boy", "a man"], "answer": 0}\n'
            '{"clip_name": "video7011", "options": ["a", "b", "c", "d", "e"], "answer": 4}\n'
        },
        {
            "msrvtt_mc_test.json": [
                {"video": "video7010", "caption": ["a cat sleeps", "a dog", "a car", "a boy", "a man"], "answer": 0},
                {"video": "video7011", "caption": ["a", "b", "c", "d", "e"], "answer": 4},
            ]
        },
    ],
)
def test_msrvtt_mc(convert: Convert, tmp_path: Path, files: world.Files):
    done = convert("msrvtt-mc", files)
    assert done.code == 0, done.err
    first, second = made(tmp_path, "txt_msrvtt-mc.json")["test"]
    options = {
        "option_0": "a cat sleeps",
        "option_1": "a dog",
        "option_2": "a car",
        "option_3": "a boy",
        "option_4": "a man",
    }
    assert first == {"video": "video7010", "question": "", "answer": 0, **options}
    assert (second["video"], second["option_4"], second["answer"]) == ("video7011", "e", 4)
    assert "main_retmc_mlm_head.py --config _args/args_msrvtt-mc.json" in done.out


@pytest.mark.parametrize("corpus", ["txt", "csv"])
@pytest.mark.parametrize("lists", [True, False])
def test_msvd(convert: Convert, tmp_path: Path, corpus: str, lists: bool):
    files = dict(world.MSVD)
    if corpus == "csv":
        del files["AllVideoDescriptions.txt"]
        files["video_corpus.csv"] = world.MSVD_CSV
    if not lists:
        files = {name: text for name, text in files.items() if "list" not in name} | {
            "youtube_mapping.txt": world.MAPPING
        }
    done = convert("msvd", files)
    assert (done.code, done.err) == (0, "")
    found = made(tmp_path, "txt_msvd-retrieval.json")
    second = "an animal eats" if corpus == "txt" else "a squirrel, eating"
    assert pairs(found["train"]) == [("-4ws_uPCj_5_15", "a squirrel eats a nut"), ("-4ws_uPCj_5_15", second)]
    assert pairs(found["val"]) == [("abc_1_2", "a man cooks")]
    assert [item["video"] for item in found["test"]] == ["de_3_4"]
    reader = TSVReader(tmp_path / "made" / "MSVD" / "train_32frames.caption.tsv")
    assert (len(reader), second in reader.row(0)[1]) == (1, True)
    if corpus == "csv":
        assert "1 descriptions are in other languages" in done.out
        assert "1 descriptions are blank" in done.out
    else:
        assert "'#'" in done.out, "the comment in front is told, too"


def test_msrvtt_qa(convert: Convert, tmp_path: Path):
    done = convert("msrvtt-qa", world.XU_QA)
    assert (done.code, done.err) == (0, "")
    found = made(tmp_path, "txt_msrvtt-qa.json")
    assert found["ans2label"] == {"squirrel": 0, "nut": 1}
    first = {"video": "video1", "question": "who eats?", "answer_text": "squirrel", "answer": 0}
    assert found["train"][0] == first
    assert [(item["video"], item["answer_text"], item["answer"]) for item in found["test"]] == [
        ("video1301", "little girl", -1),
        ("video1301", "squirrel", 0),
    ]
    assert "3 train, 1 val, 2 test items" in done.out
    assert "0 train, 0 val, 1 test answers that are not one word" in done.out
    assert "0 train, 1 val, 1 test answers outside the 2 classes" in done.out


def test_msvd_qa_has_the_names_of_youtube_where_they_are_known(convert: Convert, tmp_path: Path):
    done = convert("msvd-qa", world.XU_QA)
    assert "youtube_mapping.txt is not there" in done.out
    assert made(tmp_path, "txt_msvd-qa.json")["train"][0]["video"] == "vid1"
    convert("msvd-qa", {"youtube_mapping.txt": world.MAPPING}, "--overwrite")
    found = made(tmp_path, "txt_msvd-qa.json")
    assert [found[split][0]["video"] for split in ("train", "val", "test")] == ["-4ws_uPCj_5_15", "abc_1_2", "de_3_4"]


@pytest.mark.parametrize(
    ("name", "files"), [("tgif-action", world.TGIF_ACTION), ("tgif-transition", world.TGIF_TRANSITION)]
)
def test_tgif_choices(convert: Convert, tmp_path: Path, name: str, files: world.Files):
    done = convert(name, files)
    assert (done.code, done.err) == (0, "")
    found = made(tmp_path, f"txt_{name}.json")
    first = found["train"][0]
    assert (first["video"], first["question"]) == ("tumblr_Train1_250", "What does the cat do 3 times ?")
    assert [first[f"option_{n}"] for n in range(5)] == ["jump", "run", "wave a hand", 'say "no"', "nod"]
    assert (first["answer"], found["test"][0]["answer"]) == (4, 1)
    assert found["train"][1]["option_2"] == 'say "yes"', "in quotes, as pandas writes it"
    assert (found["val"], "--hold_out" in done.out) == ([], True)
    assert f"main_qamc_mlm_gen_ans_idx.py --config _args/args_{name}.json" in done.out


def test_tgif_frame(convert: Convert, tmp_path: Path):
    assert convert("tgif-frame", world.TGIF_FRAME).code == 0
    found = made(tmp_path, "txt_tgif-frame.json")
    expected = {"video": "tumblr_Test1_250", "question": "how many dogs run ?", "answer_text": "two", "answer": 0}
    assert found["test"][0] == expected
    assert found["ans2label"] == {"two": 0, "red": 1}


def test_lsmdc(convert: Convert, tmp_path: Path):
    assert convert("lsmdc", world.LSMDC).code == 0
    found = made(tmp_path, "txt_lsmdc-retrieval.json")
    assert pairs(found["train"]) == [(CLIPS[0], 'SOMEONE looks up: "Go!"'), (CLIPS[0], '"No," she says.')], (
        "quotes stay"
    )
    assert (pairs(found["val"]), pairs(found["test"])) == ([(CLIPS[1], "He runs.")], [(CLIPS[2], "She sits.")])


def test_lsmdc_mc_options_are_shuffled_but_in_the_test(convert: Convert, tmp_path: Path):
    done = convert("lsmdc-mc", world.LSMDC_MC)
    assert done.code == 0, done.err
    found = made(tmp_path, "txt_lsmdc-mc.json")
    for split in ("train", "val", "test"):
        for item in found[split]:
            assert item[f"option_{item['answer']}"] == "It is right."
    assert len({item["answer"] for item in found["train"]}) > 1
    options = {f"option_{n}": text for n, text in enumerate(["w", "It is right.", "w2", "w3", "w4"])}
    assert found["test"] == [{"video": CLIPS[2], "question": "", "answer": 1, **options}]
    convert("lsmdc-mc", {}, "--overwrite")
    assert made(tmp_path, "txt_lsmdc-mc.json") == found, "always alike"


def test_lsmdc_fib(convert: Convert, tmp_path: Path):
    done = convert("lsmdc-fib", world.LSMDC_FIB)
    assert done.code == 0, done.err
    found = made(tmp_path, "txt_lsmdc-fib.json")
    assert found["train"][0] == {
        "video": CLIPS[0],
        "question": "She [MASK] the door.",
        "answer_text": "opens",
        "answer": 0,
    }
    assert found["test"][0]["question"] == "[MASK] sit down."
    assert "main_qaoe_mlm_lsmdc_fib.py --config _args/args_lsmdc-fib.json" in done.out


def test_didemo_descriptions_of_a_video_are_one_paragraph(convert: Convert, tmp_path: Path):
    done = convert("didemo", world.DIDEMO)
    assert done.code == 0, done.err
    found = made(tmp_path, "txt_didemo-retrieval.json")
    assert pairs(found["val"]) == [("1@N0_val_a.1", ["a dog runs", "it sits"]), ("2@N0_val_b", ["a car stops"])]


def test_webvid(convert: Convert, tmp_path: Path):
    done = convert("webvid", world.WEBVID)
    assert (done.code, done.err) == (0, "")
    captions = {"21179416": ['Aerial shot, "winter" forest'], "5629184": ["Senior couple"]}
    assert made(tmp_path, "txt_webvid2.5m.json") == {"train": captions, "val": {"1010": ["Été à la mer"]}}
    assert "2 train, 1 val captions" in done.out
    assert "main_pretrain_mlm.py --config _args/args_pretrain_webvid.json" in done.out


def test_webvid_of_both_sizes_and_ids_that_come_again(convert: Convert, tmp_path: Path):
    large = world.WEBVID["results_2M_train.csv"] + "5629184,u,d,p,Again\n"
    done = convert("webvid", {**world.WEBVID, "results_10M_train.csv": large})
    assert made(tmp_path, "txt_webvid10m.json")["train"]["5629184"] == ["Senior couple"]
    assert "1 train captions of ids that came before" in done.out
    assert "--dataset webvid10m" in done.out


def test_cc3m_ids_are_line_numbers(convert: Convert, tmp_path: Path):
    expected = {
        "train": {"00000000": ['a "very" typical bus station'], "00000001": ["a café"]},
        "val": {"00000002": ["author : a life"]},
    }
    convert("cc3m", world.CC3M)
    assert made(tmp_path, "txt_cc3m.json") == expected
    convert("cc3m", {name: "caption\turl\n" + text for name, text in world.CC3M.items()}, "--overwrite")
    assert made(tmp_path, "txt_cc3m.json") == expected, "the header of img2dataset is no image"
