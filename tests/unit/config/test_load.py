"""Options from files and from the command line, and every config that is shipped."""

import json
from pathlib import Path

import pytest

from lavender.config import names
from lavender.config.load import from_dict, load_config, read_object
from lavender.config.options import options
from lavender.config.schema import Config
from lavender.runtime.errors import ConfigError

SHIPPED = Path(__file__).parents[3] / "_args"


@pytest.fixture
def write(tmp_path):
    def write(content: dict | str | bytes) -> str:
        path = tmp_path / "args.json"
        if isinstance(content, dict):
            content = json.dumps(content)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return str(path)

    return write


def refused(arguments: list[str], **keywords) -> str:
    with pytest.raises(ConfigError) as caught:
        load_config(arguments, **keywords)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --- the command line -------------------------------------------------------------------------------------------------


def test_nothing_given_is_the_defaults():
    config = load_config([])
    assert config == Config()
    assert config.given == {}


def test_the_command_line_wins_and_who_gave_what_is_kept(write):
    path = write({"size_batch": 24, "lr": 2e-5, "task": "msvd-qa"})
    config = load_config(["--config", path, "--size_batch", "4", "--seed=7"])
    assert (config.size_batch, config.lr, config.task, config.seed) == (4, 2e-5, "msvd-qa", 7)
    line = "command line"
    assert config.given == {"size_batch": line, "lr": "file", "task": "file", "config": line, "seed": line}
    assert config.config == path


def test_arguments_default_to_those_of_the_process(monkeypatch):
    monkeypatch.setattr("sys.argv", ["main.py", "--seed", "5"])
    assert load_config().seed == 5


def test_booleans_alone_or_with_a_word():
    config = load_config(
        ["--deepspeed", "--size_batch", "4", "--use_checkpoint", "YES", "--txt_backbone_embed_only=no"]
    )
    assert (config.deepspeed, config.size_batch, config.use_checkpoint) == (True, 4, True)
    assert config.txt_backbone_embed_only is False
    assert load_config(["--swinbert"]).swinbert is True
    assert load_config(["--swinbert", "0"]).swinbert is False


def test_lists_and_objects():
    assert load_config(["--pretrain_tasks", "vtm", "mtm", "--seed", "1"]).pretrain_tasks == ["vtm", "mtm"]
    assert load_config(["--pretrain_tasks", '["vtm"]']).pretrain_tasks == ["vtm"]
    assert load_config(["--dataset", "msvd"]).dataset == "msvd"
    assert load_config(["--type", "pretrain", "--dataset", "cc3m", "vg"]).dataset == ["cc3m", "vg"]
    config = load_config(["--type=pretrain", '--dataset={"cc3m": "there"}', "--size_part", '{"cc3m": 2}'])
    assert (config.dataset, config.size_part) == ({"cc3m": "there"}, {"cc3m": 2})
    entries = '[{"type": "qaoe", "task": "a", "use_asr": 1}]'
    config = load_config(["--type", "multi-task", "--datasets", entries])
    assert config.datasets == [{"type": "qaoe", "task": "a"}]
    assert "entry 1: use_asr" in config.notices()[0]


def test_numbers_and_empty_words():
    config = load_config(["--max_grad_norm", "-1", "--lr=2e-5", "--size_batch", "4.0", "--path_ckpt="])
    assert (config.max_grad_norm, config.lr, config.size_batch, config.path_ckpt) == (-1.0, 2e-5, 4, "")
    assert load_config(["--task", "5"]).task == "5"


def test_the_last_of_a_repeated_option_counts():
    assert load_config(["--seed", "1", "--seed", "2"]).seed == 2


@pytest.mark.parametrize(
    "words", [["--local_rank=3"], ["--local-rank=3"], ["--local_rank", "3"], ["--local-rank", "3"]]
)
def test_the_launchers_local_rank_is_ignored(words):
    config = load_config([*words, "--seed", "1"])
    assert config == Config(seed=1)
    assert config.notices() == []


def test_legacy_options_on_the_command_line_are_noticed():
    config = load_config(["--use_asr", "--attn_mask_type", "seq2seq", "--seed", "1"])
    assert config.seed == 1
    assert [notice.split()[2] for notice in config.notices()] == ["use_asr", "attn_mask_type"]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--size_bacth", "4"], 'unknown option "--size_bacth"; did you mean --size_batch?'),
        (["--size-batch=4"], 'unknown option "--size-batch"; did you mean --size_batch?'),
        (["--size_bat", "4"], "did you mean --size_batch?"),  # no abbreviations
        (["--qqqqqqqq"], "--help lists them all"),
        (["msvd"], '"msvd" belongs to no option'),
        (["--seed", "1", "2"], '"2" belongs to no option'),
        (["--deepspeed", "maybe"], '--deepspeed is "maybe"; expected true or false'),
        (["--size_batch", "four"], '--size_batch is "four"; expected a whole number, 1 or more'),
        (["--size_batch", "9" * 25], "9; expected a whole number, 1 or more, below 2^63"),
        (["--size_batch", "9" * 5000], "--size_batch is Infinity; expected a whole number"),
        (["--lr", "9" * 4000], "digits; expected a number"),
        (["--" + "x" * 100_000], "...xxxx"),
        (["a\nb"], r'"a\nb" belongs to no option'),
        (["--size_batch", "2.5"], "--size_batch is 2.5; expected a whole number"),
        (["--lr", "nan"], "--lr is NaN; expected a number"),
        (["--precision", "int8"], "expected one of auto, bf16, fp16, fp32"),
        (["--pretrain_tasks", "vtm", "itm"], "--pretrain_tasks is "),
        (["--size_batch"], "--size_batch"),
        (["--dataset", '{"cc3m": '], "--dataset: not valid JSON at line 1"),
        (["--datasets", '[{"seeed": 1}]'], "datasets, entry 1: unknown option"),
    ],
)
def test_faults_of_the_command_line(words, expected):
    message = refused(words)
    assert message.startswith("command line: ")
    assert expected in message


# --- files ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ({"size_bacth": 4}, 'unknown option "size_bacth"; did you mean size_batch?'),
        ({"size_batch": "four"}, 'size_batch is "four"; expected a whole number, 1 or more'),
        ('{"lr": 1,\n "seed" 2}', "not valid JSON at line 2, column 9"),
        ("", "empty"),
        (" ", "not valid JSON at line 1, column 2"),
        ('{"lr": 1, "lr": 2}', 'the key "lr" is given twice'),
        ('{"datasets": [{"task": "a", "task": "a"}]}', 'the key "task" is given twice'),
        ('{"lr": NaN}', "NaN is not JSON"),
        ('{"lr": 1e999}', "lr is Infinity"),
        ('{"seed": ' + "9" * 5000 + "}", "line 1, column 10: a whole number of more than 4,300 digits"),
        ("[" * 100_000, "line 1, column 101: nested too deeply"),
        ("[1]", "must hold one JSON object"),
        (b'{"task": "\xff"}', "byte 10 is not UTF-8"),
        ({"task": ["x" * 500]}, "..."),
        ({"ta\nsk": 1}, 'unknown option "ta\\nsk"; did you mean task?'),
        ('{"task": ["\\ud800"]}', "expected a string"),
        ({"size_frame": 9}, "set max_size_frame to 9"),
        ({"task": None}, "task is null; expected a string"),
    ],
)
def test_faults_of_a_file_name_it(write, content, expected):
    path = write(content)
    message = refused(["--config", path])
    assert message.startswith(f"{path}: ")
    assert expected in message
    assert len(message.encode()) < 300 + len(path)


def test_a_file_that_cannot_be_read(tmp_path):
    assert refused(["--config", f"{tmp_path}/none.json"]).endswith("none.json: no such file")
    assert "cannot be read" in refused(["--config", str(tmp_path)])
    with pytest.raises(ConfigError, match="no such file"):
        read_object(tmp_path / "none.json")


def test_a_byte_order_mark_is_skipped(write):
    assert load_config(["--config", write(b'\xef\xbb\xbf{"seed": 3}')]).seed == 3


def test_a_fault_between_file_and_command_line(write):
    path = write({"enable_prompt": True})
    assert "choose one" in refused(["--config", path, "--enable_task_token"])
    assert load_config(["--config", path, "--enable_task_token", "--enable_prompt", "false"]).enable_task_token


def test_a_fault_of_the_command_line_does_not_blame_the_file(write):
    path = write({"max_size_patch": 8, "use_checkpoint": False})
    assert refused(["--config", path, "--size_img", "100"]).startswith("command line: size_img is 100")
    assert refused(["--config", path, "--size_img", "320"]).startswith(f"command line and {path}: size_img 320")
    assert refused(["--config", path, "--size_frame", "9"]).startswith("command line: size_frame 9")
    assert refused(["--config", path, "--datasets", "[{}]"]).startswith("command line: datasets, entry 1: ")
    path = write({"size_img": 100})
    assert refused(["--config", path, "--seed", "1"]).startswith(f"{path}: size_img is 100")


@pytest.mark.parametrize(
    ("name", "ours"),
    [
        ("batch_size", "size_batch"),
        ("train-batch-size", "size_batch"),
        ("BatchSize", "size_batch"),
        ("per_gpu_train_batch_size", "size_batch"),
        ("epochs", "size_epoch"),
        ("num_train_epochs", "size_epoch"),
        ("num-workers", "n_workers"),
        ("learning_rate", "lr"),
        ("LR", "lr"),
        ("output_dir", "path_output"),
        ("resume_from", "resume"),
        ("checkpoint", "path_ckpt"),
        ("pretrained", "path_ckpt"),
        ("img_size", "size_img"),
        ("num_frames", "size_frame"),
        ("max_len", "size_txt"),
        ("weight_decay", "decay"),
        ("data", "data_dir"),
        ("fp16", "precision"),
        ("amp", "precision"),
        ("gpus", "nproc_per_node"),
        ("warmup", "schedule"),
    ],
)
def test_names_of_other_programs(name, ours, write):
    assert ours in refused([f"--{name}", "8"]).partition(";")[2]
    assert ours in refused(["--config", write({name: 8})]).partition(";")[2]


def test_names_of_other_programs_lead_to_options_that_exist():
    assert set(names._OURS.values()) <= set(options())


# --- what released runs wrote -----------------------------------------------------------------------------------------


def test_args_json_of_a_released_run_is_read():
    record = {
        **{"vidswin_size": "small", "backbone_init": "random", "vis_backbone": "vidswin", "backbone": "vidswin"},
        **{"task_token": None, "kinetics": -1, "local_rank": 0, "num_gpus": 8, "max_iter": 100, "tokenizer": "b/"},
        **{"an_idea_of_2022": 1, "size_frame": 5, "enable_prompt": True, "enable_task_token": True},
    }
    config = from_dict(record, "args.json", strict=False)
    assert (config.vis_backbone_size, config.vis_backbone_init, config.kinetics) == ("small", "random", 600)
    assert (config.task_token, config.size_frame) == ("", 5)
    assert set(config.given) == {
        *("vis_backbone", "vis_backbone_size", "vis_backbone_init", "size_frame", "enable_prompt", "enable_task_token")
    }
    assert "args.json: vidswin_size is called vis_backbone_size now" in config.notices()
    assert "args.json: an_idea_of_2022 is unknown and changes nothing" in config.notices()
    with pytest.raises(ConfigError, match='unknown option "an_idea_of_2022"'):
        from_dict(record, "args.json")


@pytest.mark.parametrize("order", [1, -1])
def test_todays_name_wins_over_the_old_one(order):
    record = dict([("vidswin_size", "tiny"), ("vis_backbone_size", "large")][::order])
    assert from_dict(record, "x").vis_backbone_size == "large"


def test_a_record_is_still_checked_value_by_value():
    with pytest.raises(ConfigError, match="size_frame is 0"):
        from_dict({"size_frame": 0}, "args.json", strict=False)


# --- the configs in _args ---------------------------------------------------------------------------------------------

COMMON = {
    **{"size_img": 224, "lr": 2e-5, "decay": 1e-3, "max_grad_norm": 1.0, "use_checkpoint": True, "deepspeed": True},
    **{"vis_backbone": "vidswin", "vis_backbone_size": "base", "vis_backbone_init": "3d", "kinetics": 600},
    **{"txt_backbone": "bert-base-uncased", "txt_backbone_embed_only": True, "fusion_encoder": "bert-base-uncased"},
    **{"path_ckpt": "", "img_transform": ["img_rand_crop"], "pretrain_tasks": ["mtm", "vtm"], "p_mask": 0.15},
}
COLUMNS = ("type", "dataset", "task", "size_frame", "size_txt", "size_epoch", "size_batch")
PRETRAIN = {"size_part": 10, "temp": 0.05, "pretrain_tasks": ["vtm", "mtm"]}
CORPORA = ["webvid2.5m", "cc3m"]


def yamls(folder: str) -> dict:
    return {f"{split}_yaml": f"{folder}/{split}_32frames.yaml" for split in ("train", "val", "test")}


RELEASED: dict[str, tuple] = {
    "pretrain": ("pretrain", CORPORA, "pretrain", 4, 32, 10, 24, PRETRAIN),
    "pretrain_webvid_cc": ("pretrain", CORPORA, "pretrain", 4, 32, 10, 24, PRETRAIN),
    "pretrain_webvid": ("pretrain", ["webvid2.5m"], "pretrain", 4, 32, 10, 24, PRETRAIN),
    "tgif-action": ("qamc", "tgif", "tgif-action", 5, 100, 56, 20, {"size_option": 5}),
    "tgif-transition": ("qamc", "tgif", "tgif-transition", 5, 100, 15, 20, {"size_option": 5}),
    "msrvtt-mc": ("qamc", "msrvtt", "msrvtt-mc", 5, 25, 0, 20, {"size_option": 5}),
    "lsmdc-mc": ("qamc", "lsmdc", "lsmdc-mc", 5, 25, 10, 24, {"size_option": 5}),
    "tgif-frame": ("qaoe", "tgif", "tgif-frame", 5, 25, 20, 10, {"size_vocab": 1540, "size_test": 13691}),
    "msrvtt-qa": ("qaoe", "msrvtt", "msrvtt-qa", 5, 25, 8, 24, {"size_vocab": 1500, "size_test": 72821}),
    "msvd-qa": ("qaoe", "msvd", "msvd-qa", 5, 25, 8, 24, {"size_vocab": 1000, "size_test": 13157}),
    "lsmdc-fib": ("qaoe", "lsmdc", "lsmdc-fib", 5, 25, 10, 24, {"size_vocab": 908, "size_test": 30349}),
    "msrvtt-retrieval": ("retrieval", "msrvtt", "msrvtt-retrieval", 5, 25, 10, 20, {"temp": 0.05}),
    "lsmdc-retrieval": ("retrieval", "lsmdc", "lsmdc-retrieval", 5, 25, 5, 20, {"temp": 0.05}),
    "msvd-retrieval": ("retrieval", "msvd", "msvd-retrieval", 5, 25, 5, 20, {"temp": 0.05}),
    "didemo-retrieval": ("retrieval", "didemo", "didemo-retrieval", 5, 100, 10, 16, {"temp": 0.05}),
    "msrvtt-cap": ("captioning", "", "msrvtt-cap", 4, 50, 20, 24, {"max_gen_length": 20, **yamls("MSRVTT-v2")}),
    "msvd-cap": ("captioning", "", "msvd-cap", 4, 50, 20, 24, {"max_gen_length": 20, **yamls("MSVD")}),
}


def shipped(name: str) -> Config:
    config = load_config(["--config", str(SHIPPED / f"args_{name}.json")])
    assert config.notices() == []
    return config


def differences(config: Config, expected: dict) -> dict:
    values = config.to_dict()
    return {name: values[name] for name in expected if values[name] != expected[name]}


def test_the_shipped_configs_are_those_of_the_released_commands():
    names = {path.name for path in SHIPPED.glob("*.json")}
    assert names == {f"args_{name}.json" for name in (*RELEASED, "multi-task_all", "multi-task_ablate")}


@pytest.mark.parametrize("name", RELEASED)
def test_a_shipped_config_has_the_released_values(name):
    *columns, others = RELEASED[name]
    expected = {**COMMON, "data_dir": "./_datasets", **dict(zip(COLUMNS, columns, strict=True)), **others}
    assert differences(shipped(name), expected) == {}


FILTERED = "./_datasets/multi_task"  # written by _tools/multi_task_vid_filter.py


def test_multi_task_ablate():
    config = shipped("multi-task_ablate")
    assert differences(config, {**COMMON, "type": "multi-task", "size_epoch": 20, "size_batch": 24}) == {}
    keys = ("type", "task", "dataset", "data_dir", "size_frame", "size_txt", "size_batch")
    assert [tuple(getattr(entry, key) for key in keys) for entry in config.entries()] == [
        ("retrieval", "didemo-retrieval", "didemo", FILTERED, 5, 100, 10),
        ("qaoe", "msvd-qa", "msvd", FILTERED, 5, 25, 24),
        ("captioning", "msrvtt-cap", "", "./_datasets", 5, 50, 24),
        ("qamc", "tgif-action", "tgif", FILTERED, 5, 100, 20),
    ]


def test_multi_task_all():
    config = shipped("multi-task_all")
    assert differences(config, {**COMMON, "type": "multi-task", "size_frame": 5, "size_epoch": 20}) == {}
    keys = ("type", "task", "data_dir", "size_frame", "size_txt", "size_batch", "dataset_type")
    assert [tuple(getattr(entry, key) for key in keys) for entry in config.entries()] == [
        ("retrieval", "didemo-retrieval", FILTERED, 5, 100, 12, ""),
        ("retrieval", "msrvtt-retrieval", FILTERED, 5, 25, 20, ""),
        ("retrieval", "msvd-retrieval", FILTERED, 5, 25, 20, ""),
        ("retrieval", "lsmdc-retrieval", FILTERED, 5, 25, 20, ""),
        ("qaoe", "msvd-qa", FILTERED, 5, 25, 60, ""),
        ("qaoe", "msrvtt-qa", FILTERED, 5, 25, 60, ""),
        ("qaoe", "tgif-frame", FILTERED, 5, 25, 60, ""),
        ("qaoe", "lsmdc-fib", FILTERED, 5, 25, 60, "fib"),
        ("captioning", "msrvtt-cap", "./_datasets", 5, 50, 60, ""),
        ("captioning", "msvd-cap", "./_datasets", 5, 50, 60, ""),
        ("qamc", "tgif-action", FILTERED, 5, 100, 60, ""),
        ("qamc", "tgif-transition", FILTERED, 5, 100, 60, ""),
        ("qamc", "lsmdc-mc", FILTERED, 5, 25, 60, "retmc"),
    ]
    for entry in config.entries():
        if entry.type == "captioning":
            folder = "MSRVTT-v2" if entry.task == "msrvtt-cap" else "MSVD"
            assert differences(entry, yamls(f"multi_task/{folder}")) == {}
        else:
            assert entry.dataset == entry.task.split("-")[0]
        if entry.type == "qaoe":
            assert entry.size_vocab == {"msvd": 1000, "msrvtt": 1500, "tgif": 1540, "lsmdc": 908}[str(entry.dataset)]


@pytest.mark.parametrize("name", [*RELEASED, "multi-task_all", "multi-task_ablate"])
def test_a_misspelt_key_in_a_shipped_config_is_refused(name, write):
    values = read_object(SHIPPED / f"args_{name}.json")
    values["path_cpkt"] = values.pop("path_ckpt")
    assert "did you mean path_ckpt?" in refused(["--config", write(values)])
