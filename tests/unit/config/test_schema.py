"""The table of options: its defaults, its limits, the checks across options, and multi-task entries."""

import dataclasses
import json

import pytest

from lavender.config.checks import validate
from lavender.config.comparisons import Counts
from lavender.config.declare import group
from lavender.config.legacy import LEGACY
from lavender.config.load import from_dict
from lavender.config.options import counting, options
from lavender.config.schema import Config
from lavender.runtime.errors import ConfigError

DEFAULTS = {
    **{
        "data_dir": "./_datasets",
        "dataset": "",
        "data_ratio": 1.0,
        "path_output": "./_snapshot/",
        "reinit_head": False,
    },
    **{"vis_backbone": "vidswin", "vis_backbone_size": "base", "kinetics": 600, "vis_backbone_init": "3d"},
    **{"txt_backbone": "bert-base-uncased", "txt_backbone_embed_only": True, "fusion_encoder": "bert-base-uncased"},
    **{"fusion_encoder_rand_init": False, "size_batch": 8, "size_img": 224, "size_frame": 4},
    **{"max_size_frame": 6, "max_size_patch": 14, "size_patch": 32, "size_vocab": -1, "size_txt": 25},
    **{"img_transform": ["img_rand_crop"], "lr": 1.2e-5, "decay": 1e-3, "size_epoch": 20, "seed": 88},
    **{"logging_steps": 20, "vis_backbone_lr_mul": 1.0, "max_grad_norm": -1.0, "deepspeed": False},
    **{"use_checkpoint": False, "temp": 1.0, "size_part": 8, "pretrain_tasks": ["mtm", "vtm"], "p_mask": 0.15},
    **{"enable_task_token": False, "task_token": "", "enable_prompt": False, "mask_pos": "append", "path_ckpt": ""},
    **{"multi_clip_testing": False, "max_gen_length": 20, "label_smoothing": 0.0, "drop_worst_ratio": 0.0},
    **{"drop_worst_after": 0, "swinbert": False, "type": "", "task": "", "datasets": [], "train_yaml": ""},
    **{"val_yaml": "", "test_yaml": "", "size_option": 5, "size_test": 0, "txt_dir": "", "img_tsv_dir": ""},
    **{"num_beams": 1, "num_keep_best": 1, "do_sample": False, "gen_temperature": 1.0},
    **{"top_k": 0, "top_p": 1.0, "repetition_penalty": 1.0},
    # our own
    **{"on_bad_sample": "error", "repeat_frames": False, "precision": "auto", "zero_stage": 1, "deepspeed_config": ""},
    **{"gradient_accumulation": 1, "checkpoint_offload": False, "vis_backbone_drop_path": 0.2, "device": "auto"},
    **{"score_fn": "probability", "vis_backbone_path": "", "dataset_type": "", "config": ""},
}


def refused(values: dict) -> str:
    with pytest.raises(ConfigError) as caught:
        from_dict(values, "here.json")
    message = str(caught.value)
    assert message.startswith("here.json")
    assert "\n" not in message
    return message


def test_every_released_default():
    values = Config().to_dict()
    assert {name: values[name] for name in DEFAULTS} == DEFAULTS
    assert {name: type(value) for name, value in values.items() if name in DEFAULTS} == {
        name: type(value) for name, value in DEFAULTS.items()
    }


def test_every_default_passes_its_own_check():
    for name, option in options().items():
        assert option.check(option.default, "defaults") == option.default, name
    validate(Config(), "defaults")


def test_every_option_has_help_and_no_option_is_a_legacy_key():
    assert all(option.help and option.group for option in options().values())
    assert not set(options()) & set(LEGACY)


def test_lists_are_not_shared_between_configs():
    Config().img_transform.append("pad_resize")
    assert Config().img_transform == ["img_rand_crop"]


def test_dump_is_json_that_reads_back_equal():
    config = from_dict({"type": "pretrain", "dataset": ["a", "b"], "size_part": {"a": 2, "b": 3}, "lr": 1}, "x")
    dumped = json.loads(json.dumps(config.to_dict()))
    assert "given" not in dumped
    assert "remarks" not in dumped
    assert from_dict(dumped, "args.json") == config


@pytest.mark.parametrize(
    ("option", "value", "expected"),
    [
        ("size_batch", 0, "a whole number, 1 or more"),
        ("size_batch", "four", "a whole number"),
        ("size_batch", 2.5, "a whole number"),
        ("size_batch", True, "a whole number"),
        ("size_batch", None, "a whole number"),
        ("lr", True, "a number"),
        ("lr", "2e-5", "a number"),
        ("lr", -1e-5, "0 or more"),
        ("lr", float("inf"), "a number"),
        ("lr", 10**400, "a number"),
        ("p_mask", 1.01, "a number, from 0 to 1"),
        ("temp", 0, "a number, above 0"),
        ("data_ratio", 0, "above 0"),
        ("seed", 2**32, "from 0 to 4294967295"),
        ("size_vocab", -2, "-1 or more"),
        ("deepspeed", "maybe", "true or false"),
        ("deepspeed", 2, "true or false"),
        ("deepspeed", 1.0, "true or false"),
        ("task", 5, "a string"),
        ("kinetics", 700, "one of 600, 400"),
        ("vis_backbone_size", "huge", "one of micro, tiny, small, base, large"),
        ("mask_pos", "", "one of append, prepend, insert, replace"),
        ("precision", "fp8", "one of auto, bf16, fp16, fp32"),
        ("img_transform", ["img_rand_crop", "flip"], "a list out of img_rand_crop, img_center_crop"),
        ("img_transform", "flip", "a list out of"),
        ("pretrain_tasks", {"vtm": 1}, "a list out of mtm, vtm"),
        ("dataset", 3, "a string or a list of strings or an object (name to string)"),
        ("dataset", ["a", 3], "a string or a list of strings"),
        ("size_part", {"a": 0}, "a whole number or an object (name to number), 1 or more"),
        ("datasets", ["didemo"], "a list of objects"),
    ],
)
def test_misfits_name_option_value_and_what_is_expected(option, value, expected):
    message = refused({option: value})
    assert f" {option} is " in message
    assert expected in message


@pytest.mark.parametrize(
    ("option", "value", "meant"),
    [
        *[("deepspeed", yes, True) for yes in (True, 1, "1", "true", "TRUE", "Yes")],
        *[("txt_backbone_embed_only", no, False) for no in (False, 0, "0", "false", "No")],
        ("size_batch", 4.0, 4),
        ("lr", 1, 1.0),
        ("seed", 2**31 + 1, 2**31 + 1),
        ("img_transform", "pad_resize", ["pad_resize"]),
        ("size_part", 3, 3),
        ("task_token", "", ""),
    ],
)
def test_what_means_the_same_is_understood(option, value, meant):
    got = getattr(from_dict({option: value}, "x"), option)
    assert got == meant
    assert type(got) is type(meant)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"enable_prompt": True, "enable_task_token": True}, "choose one"),
        ({"type": "multi-task"}, "datasets must list"),
        ({"type": "qaoe", "datasets": [{"type": "qaoe", "task": "a"}]}, "datasets is for type multi-task"),
        ({"type": "qaoe", "dataset": ["a", "b"]}, "one data set"),
        ({"type": "retrieval", "dataset": {"a": "folder"}}, "one data set"),
        ({"type": "pretrain", "dataset": ["a", "b"], "size_part": {"a": 2}}, "does not name b"),
        ({"pretrain_tasks": []}, "pretrain_tasks"),
        ({"pretrain_tasks": ["vtm", "vtm"]}, "pretrain_tasks"),
        ({"img_transform": []}, "img_transform"),
        ({"size_img": 225}, "not a multiple of 32"),
        ({"size_img": 480}, "set max_size_patch to 15"),
        ({"size_frame": 7}, "set max_size_frame to 7"),
        ({"num_keep_best": 2}, "num_beams"),
        ({"num_beams": 2, "do_sample": True}, "choose one"),
        ({"checkpoint_offload": True}, "use_checkpoint"),
        ({"deepspeed_config": "ds.json"}, "needs deepspeed"),
    ],
)
def test_options_at_odds(values, words):
    assert words in refused(values)


def test_options_that_go_together():
    from_dict({"size_frame": 8, "max_size_frame": 8, "size_img": 384}, "x")
    from_dict({"size_frame": 32, "swinbert": True}, "x")
    from_dict({"num_beams": 3, "num_keep_best": 3}, "x")
    from_dict({"checkpoint_offload": True, "use_checkpoint": True, "deepspeed_config": "f", "deepspeed": True}, "x")


def test_data_sets_have_one_form_a_task():
    assert Config(type="pretrain", dataset="webvid2.5m").dataset == ["webvid2.5m"]
    assert Config(type="pretrain").dataset == []
    assert Config(type="pretrain", dataset={"cc3m": "there"}).dataset == {"cc3m": "there"}
    assert Config(type="qaoe", dataset=["msvd"]).dataset == "msvd"


def test_legacy_keys_are_noticed_and_left_out():
    config = from_dict({"use_asr": True, "limited_samples": -1, "is_decoder": "?"}, "old.json")
    assert [notice.split(" is accepted")[0] for notice in config.notices()] == [
        "old.json: use_asr",
        "old.json: limited_samples",
        "old.json: is_decoder",
    ]
    assert "use_asr" not in config.to_dict()
    assert config.given == {}
    config.notices().clear()
    assert len(config.notices()) == 3


# --- multi-task -------------------------------------------------------------------------------------------------------

RETRIEVAL = {"type": "retrieval", "task": "didemo-retrieval", "dataset": "didemo", "size_txt": 100, "size_batch": 10}
CAPTIONS = {"type": "captioning", "task": "msrvtt-cap", "train_yaml": "train.yaml"}


def multi_task(*entries: dict, **values) -> dict:
    return {"type": "multi-task", "task": "both", "datasets": list(entries), **values}


def test_an_entry_wins_over_the_run_and_inherits_the_rest():
    config = from_dict(multi_task(RETRIEVAL, CAPTIONS, size_batch=24, size_txt=50, seed=3), "x")
    first, second = config.entries()
    assert (first.type, first.task, first.dataset, first.size_txt, first.size_batch) == (*RETRIEVAL.values(),)
    assert (second.type, second.task, second.dataset) == ("captioning", "msrvtt-cap", "")
    assert (second.size_txt, second.size_batch, second.train_yaml) == (50, 24, "train.yaml")
    assert (first.train_yaml, first.datasets, first.seed) == ("", [], 3)
    assert first.given["size_txt"] == "file"
    assert Config().entries() == []


def test_the_command_line_wins_over_entries_but_not_over_their_identity():
    config = from_dict(multi_task(RETRIEVAL, CAPTIONS), "x")
    config = dataclasses.replace(
        config, size_batch=2, task="run", given={"size_batch": "command line", "task": "command line", "type": "file"}
    )
    assert [entry.size_batch for entry in config.entries()] == [2, 2]
    assert [entry.task for entry in config.entries()] == ["didemo-retrieval", "msrvtt-cap"]
    assert config.entries()[0].given["size_batch"] == "command line"
    assert config.entries()[0].given["task"] == "file"


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({**CAPTIONS, "size_bacth": 3}, 'unknown option "size_bacth"; did you mean size_batch?'),
        ({**CAPTIONS, "size_batch": 0}, "size_batch is 0"),
        ({**CAPTIONS, "size_frame": 9}, "set max_size_frame to 9"),
        ({**CAPTIONS, "datasets": [RETRIEVAL]}, "datasets of its own"),
        ({**CAPTIONS, "type": "pretrain"}, "one of retrieval, qamc, qaoe, captioning"),
        ({"type": "captioning"}, "give it a task name"),
        ({"task": "msrvtt-cap"}, "give it a task name"),
        (RETRIEVAL, "is entry 1 already"),
    ],
)
def test_a_fault_in_an_entry_names_its_number(entry, words):
    message = refused(multi_task(RETRIEVAL, entry))
    assert message.startswith("here.json: datasets, entry 2: ")
    assert words in message


def test_a_legacy_key_in_an_entry_is_noticed():
    config = from_dict(multi_task(RETRIEVAL, {**CAPTIONS, "attn_mask_type": "seq2seq"}), "x")
    assert config.notices() == [
        "x: datasets, entry 2: attn_mask_type is accepted and changes nothing: "
        "captioning is always seq2seq, all else is full"
    ]


def test_a_number_that_no_machine_holds_is_refused_with_its_option():
    """Each whole number of the schema, or the option says that any will do; the largest one allowed is accepted."""
    anything = {"seed"}
    numbers = {name: option for name, option in options().items() if option.kind is int and not option.choices}
    unbounded = [name for name, option in numbers.items() if option.limit is None and option.maximum is None]
    assert not unbounded
    for name, option in numbers.items():
        if option.limit is not None and name not in anything:
            assert option.check(int(option.limit), "here") == option.limit
            message = refused({name: int(option.limit) + 1})
            assert f" {name} is {int(option.limit) + 1}" in message
            assert f"{option.limit:,}" in message


@pytest.mark.parametrize(
    ("option", "value"), [("size_vocab", 10**9), ("size_option", 10**7), ("size_part", {"a": 10**9})]
)
def test_a_plausible_number_is_named(option: str, value: object):
    message = refused({option: value})
    assert f" {option} is " in message
    assert "at most" in message


# --- in which comparisons of two runs an option counts ----------------------------------------------------------------

COUNT = {
    Counts.CAPTIONS: {
        *(
            "size_frame",
            "size_img",
            "img_transform",
            "exact_transforms",
            "max_pixels",
            "repeat_frames",
            "on_bad_sample",
        ),
        *("enable_prompt", "enable_task_token", "task_token", "txt_backbone"),
        *("max_gen_length", "num_beams", "num_keep_best", "length_penalty", "repetition_penalty"),
        *("precision", "deepspeed", "device"),
    },
    Counts.DRAWN: {"do_sample", "gen_temperature", "top_k", "top_p", "seed"},
    Counts.SCORES: {
        *("multi_clip_testing", "score_fn", "on_bad_sample", "seed"),
        *("size_img", "size_frame", "max_size_frame", "max_size_patch", "size_patch", "img_transform", "max_pixels"),
        *("repeat_frames", "size_txt", "size_option", "size_vocab", "size_test", "mask_pos"),
        *("enable_prompt", "enable_task_token", "task_token", "vis_backbone", "vis_backbone_size"),
        *("vis_backbone_init", "kinetics", "vis_backbone_path", "vis_backbone_drop_path", "txt_backbone"),
        *("txt_backbone_embed_only", "fusion_encoder", "fusion_encoder_rand_init", "swinbert", "allow_random"),
        *("reinit_head", "exact_transforms"),
    },
    Counts.MODEL: {
        *("max_size_frame", "max_size_patch", "vis_backbone", "vis_backbone_size", "kinetics", "txt_backbone"),
        *("txt_backbone_embed_only", "fusion_encoder", "swinbert"),
    },
    Counts.INPUT: {"size_img", "size_frame", "img_transform", "size_txt"},
    Counts.PREFIX: {"enable_prompt", "enable_task_token", "task_token"},
}
NOWHERE = {
    *("config", "outside_paths", "n_workers", "loader_timeout", "path_output", "resume", "keep_checkpoints"),
    *("save_steps", "keep_last", "host_timeout", "logging_steps", "report_to", "profile"),
}


@pytest.mark.parametrize("where", COUNT)
def test_the_options_that_count_in_each_comparison(where: Counts):
    assert set(counting(where)) == COUNT[where]


def test_a_stopped_run_is_resumed_with_the_same_value_of_every_option_that_counts_anywhere():
    assert {name for name, option in options().items() if not option.counts} == NOWHERE


def test_an_option_that_does_not_say_where_it_counts_cannot_be_declared():
    assert all(isinstance(option.counts, Counts) for option in options().values())
    with pytest.raises(TypeError, match=r"an option says first where it counts"):
        group("run")(45.0, "a new option", minimum=0)
