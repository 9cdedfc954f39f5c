"""All options of a run: type, default, bounds and help of each.

A JSON file, the command line, a checkpoint's `args.json` and an entry of `datasets` are all checked against this
table. A new option is one line here; `--help`, errors, dumps and comparisons of runs follow from it.
"""
# ruff: noqa: RUF009 — the calls in Config declare its fields

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from lavender.config.comparisons import CAPTIONS, DRAWN, INPUT, MODEL, NOWHERE, PREFIX, RUN, SCORES
from lavender.config.declare import ANSWERS, CAPTIONING, CHOICE, DOWNSTREAM, PRETRAIN, RETRIEVAL, SEVERAL, TYPES, group
from lavender.config.values import COMMAND_LINE

# Options that distinguish the entries of `datasets`, so they never apply to the whole run.
_IDENTITY = {"type", "task", "dataset", "dataset_type", "datasets", "train_yaml", "val_yaml", "test_yaml"}

_data, _frames, _text, _model = group("data"), group("frames"), group("text"), group("model")
_objective, _training, _run = group("objective"), group("training"), group("run")
_captions = group("captioning", only=CAPTIONING)
_evaluation = group("evaluation", only=RETRIEVAL)


@dataclass(kw_only=True)
class Config:
    """Options of one run, checked by `lavender.config.load`.

    `dataset` is a list of names or an object (name to folder) in pretraining, and one name in every other task.
    `given` is the source of each option that was set ("file", "command line", or a checkpoint's `args.json`); others
    have their defaults.
    """

    # --- data
    config: str = _data(NOWHERE, "", "JSON file of options; options on the command line override it")
    type: str = _data(RUN, "", "task type; own:NAME for a task of your own", choices=TYPES, prefixes=("own:",))
    task: str = _data(RUN, "", "task name: text is read from txt_<task>.json; output folders are named after it")
    dataset: str | list[str] | dict[str, str] = _data(
        RUN, "", "dataset: frames are in img_<dataset>.tsv; pretraining: also a list, or an object {name: folder}"
    )
    dataset_type: str = _data(
        RUN,
        "",
        "data format, if type and task do not determine it: retmc (one text per option), fib (fill in the blank)",
        choices=("", "retrieval", "qamc", "retmc", "qaoe", "fib", "captioning"),
    )
    datasets: list[dict[str, Any]] = _data(
        RUN, [], "multi-task: a list of objects, each with the options of one task", only=SEVERAL
    )
    data_dir: str = _data(RUN, "./_datasets", "folder of the data")
    txt_dir: str = _data(RUN, "", "folder of the text files, if different from data_dir")
    img_tsv_dir: str = _data(RUN, "", "folder of the frame TSV files, if different from data_dir")
    frame_source: str = _data(
        RUN,
        "auto",
        "source of frames; auto: the TSV if it exists, else video_dir or shards",
        choices=("auto", "tsv", "videos", "shards"),
    )
    video_dir: str = _data(RUN, "", "folder of video files or image folders, read without frame extraction")
    shards: str | dict[str, str] = _data(
        RUN, "", "WebDataset tars: folder, or pattern such as {00000..00012}.tar; or an object {dataset: folder}"
    )
    stored_frames: int = _data(RUN, 5, "videos, shards: evenly spaced frames per video", minimum=1, limit=10_000)
    train_yaml: str = _data(RUN, "", "captioning: YAML of the training split, under data_dir", only=CAPTIONING)
    val_yaml: str = _data(RUN, "", "captioning: YAML of the validation split", only=CAPTIONING)
    test_yaml: str = _data(RUN, "", "captioning: YAML of the test split", only=CAPTIONING)
    outside_paths: bool = _data(
        NOWHERE, False, "captioning: allow paths in a YAML that are absolute or outside data_dir", only=CAPTIONING
    )
    data_ratio: float = _data(RUN, 1.0, "below 1: fraction of the training videos; above 1: their number", above=0)
    size_part: int | dict[str, int] = _data(
        RUN,
        8,
        "pretraining: number of parts per dataset, or an object {dataset: number}",
        minimum=1,
        only=PRETRAIN,
        limit=100_000,
    )
    n_workers: int = _data(
        NOWHERE, -1, "DataLoader workers per process; -1: chosen from the number of CPU cores", minimum=-1, limit=512
    )
    loader_timeout: float = _data(
        NOWHERE, 900.0, "abort after this many seconds without a batch; 0: never", minimum=0, limit=10_000_000
    )
    on_bad_sample: str = _data(
        CAPTIONS | SCORES, "error", "missing or unreadable videos: error, or zeros, counted", choices=("error", "zero")
    )

    # --- frames
    size_img: int = _frames(
        CAPTIONS | SCORES | INPUT,
        224,
        "height and width of a frame in pixels (Video Swin: a multiple of 32)",
        minimum=32,
        limit=8192,
    )
    size_frame: int = _frames(CAPTIONS | SCORES | INPUT, 4, "frames sampled per video", minimum=1, limit=10_000)
    max_size_frame: int = _frames(SCORES | MODEL, 6, "size of the frame position table", minimum=1, maximum=10_000)
    max_size_patch: int = _frames(SCORES | MODEL, 14, "patch position table: patches per side", minimum=1, maximum=256)
    size_patch: int = _frames(SCORES, 32, "patch size of Video Swin in pixels (timm:NAME has its own)", choices=(32,))
    img_transform: list[str] = _frames(
        CAPTIONS | SCORES | INPUT,
        ["img_rand_crop"],
        "training transforms; if several are listed, one is drawn at random for each frame",
        choices=("img_rand_crop", "img_center_crop", "pad_resize", "vid_rand_crop"),
    )
    exact_transforms: bool | str = _frames(
        CAPTIONS | SCORES,
        "auto",
        "true: resize with PIL, as released; false: faster, within one grey level; auto: exact in evaluation only",
        choices=("auto", True, False),
    )
    max_pixels: int = _frames(
        CAPTIONS | SCORES,
        64 * 2**20,
        "largest stored image in pixels; larger ones are bad samples",
        minimum=1,
        limit=2**40,
    )
    repeat_frames: bool = _frames(
        CAPTIONS | SCORES, False, "repeat the last frame of videos shorter than size_frame, instead of an error"
    )

    # --- text
    size_txt: int = _text(SCORES | INPUT, 25, "maximum tokens per text", minimum=2, limit=100_000)
    size_option: int = _text(SCORES, 5, "options per multiple-choice question", minimum=2, only=CHOICE, limit=10_000)
    size_vocab: int = _text(
        SCORES,
        -1,
        "number of answers of the task-specific open-ended head; -1: not used",
        minimum=-1,
        only=ANSWERS,
        limit=1_000_000,
    )
    size_test: int = _text(
        SCORES,
        0,
        "number of questions in the public test split, for adjusted accuracy; 0: unknown",
        minimum=0,
        only=ANSWERS,
        limit=10**9,
    )
    mask_pos: str = _text(
        SCORES,
        "append",
        "position of [MASK] in a multiple-choice text",
        choices=("append", "prepend", "insert", "replace"),
        only=CHOICE,
    )
    enable_prompt: bool = _text(CAPTIONS | SCORES | PREFIX, False, "prepend the task's prompt to the text")
    enable_task_token: bool = _text(CAPTIONS | SCORES | PREFIX, False, "prepend the task token to the text")
    task_token: str = _text(
        CAPTIONS | SCORES | PREFIX, "", "task token; default: that of the task", choices=("", "vtm", "mc", "oe", "cap")
    )

    # --- model
    vis_backbone: str = _model(
        SCORES | MODEL,
        "vidswin",
        "video backbone: Video Swin, or an image model of timm on each frame, such as timm:vit_small_patch16_224",
        choices=("vidswin",),
        prefixes=("timm:",),
    )
    vis_backbone_size: str = _model(
        SCORES | MODEL,
        "base",
        "Video Swin size (micro: for tests)",
        choices=("micro", "tiny", "small", "base", "large"),
    )
    vis_backbone_init: str = _model(
        SCORES,
        "3d",
        "initial weights of the backbone: Kinetics (3d: released files, torchvision: torchvision's), ImageNet inflated "
        "(2d), those that timm fetches for timm:NAME (timm), or none",
        choices=("3d", "2d", "torchvision", "timm", "random"),
    )
    kinetics: int = _model(SCORES | MODEL, 600, "Kinetics data set of the 3d weights", choices=(600, 400))
    vis_backbone_path: str = _model(
        SCORES, "", "weights of the backbone, a file or folder, instead of the released file; with 2d also timm:NAME"
    )
    vis_backbone_drop_path: float = _model(
        SCORES, 0.2, "stochastic depth rate of the last block, linear from 0", minimum=0, maximum=0.99
    )
    txt_backbone: str = _model(
        CAPTIONS | SCORES | MODEL, "bert-base-uncased", "BERT of the text embeddings: name or folder"
    )
    txt_backbone_embed_only: bool = _model(SCORES | MODEL, True, "use only the embeddings of txt_backbone")
    fusion_encoder: str = _model(SCORES | MODEL, "bert-base-uncased", "BERT of the fusion encoder: name or folder")
    fusion_encoder_rand_init: bool = _model(SCORES, False, "random initialization of the fusion encoder")
    swinbert: bool = _model(
        SCORES | MODEL, False, "captioning: video encoder of SwinBERT, for its checkpoints", only=CAPTIONING
    )
    path_ckpt: str = _model(RUN, "", "checkpoint to initialize from, or to evaluate")
    allow_random: bool = _model(SCORES, False, "allow evaluation with random weights or a random head")
    reinit_head: bool = _model(SCORES, False, "reinitialize the head, even if the checkpoint has one", only=DOWNSTREAM)

    # --- objective
    pretrain_tasks: list[str] = _objective(
        RUN, ["mtm", "vtm"], "pretraining losses", choices=("mtm", "vtm"), only=PRETRAIN
    )
    vtm_negatives: str = _objective(
        RUN,
        "distinct",
        "negative texts: distinct excludes texts equal to the video's own; released includes them",
        choices=("distinct", "released"),
        only=PRETRAIN,
    )
    p_mask: float = _objective(RUN, 0.15, "probability that a token is masked", minimum=0, maximum=1)
    temp: float = _objective(RUN, 1.0, "temperature of the task-specific matching scores", above=0)
    label_smoothing: float = _objective(RUN, 0.0, "captioning: label smoothing", minimum=0, maximum=1, only=CAPTIONING)
    drop_worst_ratio: float = _objective(
        RUN, 0.0, "captioning: fraction of the largest token losses to drop", minimum=0, maximum=0.99, only=CAPTIONING
    )
    drop_worst_after: int = _objective(
        RUN, 0, "captioning: step after which drop_worst_ratio applies", minimum=0, only=CAPTIONING, limit=10**12
    )

    task_sampling: str = _objective(
        RUN,
        "uniform",
        "multi-task: sample the task of each step uniformly (as released), or proportionally to its size",
        choices=("uniform", "proportional"),
        only=SEVERAL,
    )
    task_temperature: float = _objective(
        RUN, 1.0, "multi-task, proportional: probabilities ∝ samples ** (1 / temperature)", above=0, only=SEVERAL
    )

    # --- training
    size_epoch: int = _training(RUN, 20, "epochs; 0: evaluate path_ckpt without training", minimum=0, limit=1_000_000)
    size_batch: int = _training(RUN, 8, "batch size per process", minimum=1, limit=65_536)
    gradient_accumulation: int = _training(RUN, 1, "batches per optimizer step", minimum=1, limit=1_000_000)
    lr: float = _training(RUN, 1.2e-5, "peak learning rate", minimum=0)
    vis_backbone_lr_mul: float = _training(RUN, 1.0, "learning-rate multiplier of the video backbone", minimum=0)
    decay: float = _training(RUN, 1e-3, "weight decay", minimum=0)
    max_grad_norm: float = _training(RUN, -1.0, "clip the gradient norm at this value; 0 or less: no clipping")
    use_checkpoint: bool = _training(RUN, False, "activation checkpointing of the video encoder (less memory)")
    checkpoint_offload: bool = _training(RUN, False, "with use_checkpoint: offload activations to host memory")
    compile: bool = _training(RUN, False, "torch.compile video encoder and fusion: slow start, faster steps")
    deepspeed: bool = _training(CAPTIONS, False, "train with DeepSpeed (only if started by a launcher)")
    zero_stage: int = _training(RUN, 1, "DeepSpeed's ZeRO stage", choices=(0, 1, 2))
    deepspeed_config: str = _training(RUN, "", "DeepSpeed JSON config, used instead of the built-in one")
    precision: str = _training(
        CAPTIONS,
        "auto",
        "auto: bf16 if the device supports it, else fp16 on a GPU, fp32 on a CPU",
        choices=("auto", "bf16", "fp16", "fp32"),
    )

    # --- captioning
    max_gen_length: int = _captions(
        CAPTIONS, 20, "maximum tokens of a generated caption, including [CLS] and [SEP]", minimum=2, limit=100_000
    )
    num_beams: int = _captions(CAPTIONS, 1, "beam size; 1: greedy decoding", minimum=1, limit=1000)
    num_keep_best: int = _captions(CAPTIONS, 1, "captions kept per video, at most num_beams", minimum=1, limit=1000)
    length_penalty: float = _captions(
        CAPTIONS, 1.0, "beam search: score = log-probability / length ** penalty; larger values favor longer captions"
    )
    do_sample: bool = _captions(DRAWN, False, "sample each word instead of taking the most likely one")
    gen_temperature: float = _captions(DRAWN, 1.0, "sampling: temperature", above=0)
    top_k: int = _captions(DRAWN, 0, "sampling: only the k most likely words; 0: all words", minimum=0, limit=10**9)
    top_p: float = _captions(DRAWN, 1.0, "sampling: most likely words with this total probability", above=0, maximum=1)
    repetition_penalty: float = _captions(CAPTIONS, 1.0, "penalty for repeated words; 1: none", above=0)
    spice: bool = _captions(RUN, False, "also compute SPICE (needs Java and 8 GiB; takes minutes)")

    # --- evaluation
    multi_clip_testing: bool = _evaluation(SCORES, False, "retrieval: average the features of several clips per video")
    score_fn: str = _evaluation(
        SCORES,
        "probability",
        "score of a video-text pair: p(true), or the ratio of logits, as released (upstream)",
        choices=("probability", "upstream"),
    )

    eval_split: str = _evaluation(RUN, "test", "retrieval: split to evaluate", choices=("test", "val", "train"))
    allow_missing: bool = _evaluation(RUN, False, "retrieval: skip and list items without a video or a caption")
    save_top_k: int = _evaluation(RUN, 0, "retrieval: write the top-k videos of each text", minimum=0, limit=10**9)
    size_pairs: int = _evaluation(
        RUN, 0, "retrieval: pairs per forward pass; 0: chosen automatically", minimum=0, limit=1_000_000
    )
    save_minutes: float = _evaluation(
        RUN, 2.0, "retrieval: minutes between two saves of partial scores", above=0, limit=1_000_000
    )

    # --- run
    path_output: str = _run(NOWHERE, "./_snapshot/", "output folder")
    save_evaluated: bool = _run(
        RUN, False, "size_epoch 0: also save the evaluated weights in the run folder, as released"
    )
    resume: str = _run(NOWHERE, "", "resume a stopped run: auto (the last run with the same options), or its folder")
    report_to: list[str] = _run(
        NOWHERE, ["tensorboard"], "trackers for curves and example images", choices=("tensorboard", "wandb")
    )
    eval_every: int = _run(
        RUN, 1, "evaluate after every N training parts, and always after the last", minimum=1, limit=1_000_000
    )
    keep_checkpoints: str = _run(
        NOWHERE, "all", "which checkpoints are kept: all, the best so far, or the last", choices=("all", "best", "last")
    )
    save_steps: int = _run(
        NOWHERE, 1000, "save the training state every N steps; 0: only at the end of each part", minimum=0, limit=10**12
    )
    keep_last: int = _run(NOWHERE, 1, "number of training states that are kept", minimum=1, limit=1_000_000)
    host_timeout: float = _run(
        NOWHERE,
        45.0,
        "several hosts: abort when one is silent for so many seconds; 0: never",
        minimum=0,
        limit=10_000_000,
    )
    seed: int = _run(DRAWN | SCORES, 88, "random seed", minimum=0, maximum=2**32 - 1)
    logging_steps: int = _run(NOWHERE, 20, "log interval in steps", minimum=1, limit=10**12)
    profile: int = _run(NOWHERE, 0, "training steps to profile, after 2 warm-up steps; 0: off", minimum=0, limit=1000)
    device: str = _run(CAPTIONS, "auto", "auto: a GPU if there is one", choices=("auto", "cpu", "cuda"))

    # --- not options
    given: dict[str, str] = field(default_factory=dict, repr=False, compare=False)
    remarks: list[str] = field(default_factory=list, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.type == "pretrain" and isinstance(self.dataset, str):
            self.dataset = [self.dataset] if self.dataset else []
        elif self.type != "pretrain" and isinstance(self.dataset, list) and len(self.dataset) == 1:
            self.dataset = self.dataset[0]

    def to_dict(self) -> dict[str, Any]:
        """All options with their values, as in `args.json`."""
        values = dataclasses.asdict(self)
        return {item.name: values[item.name] for item in dataclasses.fields(self) if item.metadata}

    def changed(self) -> dict[str, Any]:
        """Options that differ from their defaults."""
        defaults = Config().to_dict()
        return {name: value for name, value in self.to_dict().items() if value != defaults[name]}

    def notices(self) -> list[str]:
        """Log lines about accepted options without effect."""
        return list(self.remarks)

    def entries(self) -> list["Config"]:
        """Multi-task: complete configuration of each entry of `datasets`.

        An entry takes precedence over the run's options, and the command line over both, except for the options that
        distinguish entries.
        """
        inherited = {name: value for name, value in self.to_dict().items() if name not in _IDENTITY}
        said = {name for name, where in self.given.items() if where == COMMAND_LINE} - _IDENTITY
        configs = []
        for entry in self.datasets:
            own = {name: value for name, value in entry.items() if name not in said}
            given = {name: where for name, where in self.given.items() if name not in _IDENTITY}
            configs.append(Config(**{**inherited, **own}, given={**given, **dict.fromkeys(own, "file")}))
        return configs
