"""Names of options in other programs: errors about them suggest ours."""

import difflib
from collections.abc import Iterable

from lavender.runtime.quoting import LIMIT

# Our name → common names elsewhere, without underscores.
_ELSEWHERE = {
    "config": "cfg configfile configpath opts",
    "data_dir": "data datadir dataroot datapath dataroots root rootdir inputdir",
    "dataset": "datasetname",
    "txt_dir": (
        "textdir annotationdir annotations anno annodir annfile annotationfile textfile trainfile testfile valfile"
    ),
    "video_dir": "videopath videoroot videofolder",
    "shards": "urls url tars tar shardlist trainshards traindata wds wdsurls webdataset",
    "img_tsv_dir": "featuredir framesdir framedir imgdir imagedir",
    "data_ratio": "maxtrainsamples limittrainbatches subset numsamples trainfraction",
    "n_workers": "workers numworkers dataloadernumworkers dataloaderworkers numworker nworker j",
    "size_img": "imagesize imgsize inputsize resolution imageresolution cropsize imageres resizesize res",
    "size_frame": (
        "numframes nframes numframe nframe maxframes framenum numsegments numsegment testnumframes videonumframes "
        "maxframe"
    ),
    "img_transform": "transform transforms augmentation",
    "size_txt": (
        "maxlen maxlength maxseqlen maxseqlength maxtextlength maxtxtlen maxwords textlen contextlength maxtxtl"
    ),
    "size_option": "numoptions noptions numchoices nchoices",
    "size_vocab": "numanswers numclasses nclasses numlabels answervocabsize",
    "vis_backbone_size": "modelsize model arch backbonesize",
    "vis_backbone_path": "backbonepath visualcheckpoint",
    "txt_backbone": "bert bertmodel textencoder modelnameorpath tokenizername tokenizerpath",
    "path_ckpt": (
        "checkpoint ckpt checkpointpath ckptpath pretrained pretrainedpath pretrainedmodel pretrainedcheckpoint "
        "weights initmodel initweight initcheckpoint loadfrom loadcheckpoint modelpath finetune e2eweightspath"
    ),
    "p_mask": "maskprob mlmprob mlmprobability maskratio",
    "temp": "temperature tau",
    "size_epoch": "epochs epoch numepochs nepochs numtrainepochs maxepochs maxepoch totalepochs trainepochs",
    "size_batch": (
        "batchsize trainbatchsize evalbatchsize testbatchsize valbatchsize pergpubatchsize perdevicebatchsize "
        "pergputrainbatchsize perdevicetrainbatchsize perdeviceevalbatchsize batch bs b bsz"
    ),
    "gradient_accumulation": (
        "gradientaccumulationsteps gradaccum accumsteps accumulationsteps gradaccumsteps accumiter updatefreq "
        "accumulategradbatches"
    ),
    "lr": "learningrate baselr initlr maxlr peaklr",
    "decay": "weightdecay wd",
    "max_grad_norm": "gradnorm clipgrad clipgradnorm gradclip gradientclipval gradclipnorm clipnorm",
    "use_checkpoint": "gradientcheckpointing gradcheckpoint activationcheckpointing checkpointing",
    "precision": "fp16 bf16 fp32 amp useamp mixedprecision half dtype",
    "zero_stage": "zero stage",
    "deepspeed_config": "dsconfig",
    "max_gen_length": "maxnewtokens maxgenerationlength genmaxlen maxgenlen",
    "num_beams": "beams beamsize numbeam beam",
    "eval_split": "split testsplit evalset",
    "path_output": (
        "output outputdir outdir out savedir savepath outputpath logdir workdir resultdir outputfolder exp expdir "
        "rundir defaultrootdir"
    ),
    "resume": "resumefrom resumefromcheckpoint autoresume continue resumepath resumecheckpoint",
    "save_steps": "saveinterval saveevery saveiter checkpointinterval",
    "seed": "randomseed randseed manualseed",
    "logging_steps": "loginterval logfreq printfreq logevery logsteps printevery ndisplay",
    "device": "cuda cpu usecuda nocuda",
}
_OURS = {other: ours for ours, others in _ELSEWHERE.items() for other in others.split()}
_LAUNCHER = "the launcher says how many processes: torchrun --nproc_per_node"
_EVALUATE = "--size_epoch 0 evaluates alone"
# Names without a counterpart here → what to do.
_INSTEAD = {
    **dict.fromkeys(("gpus", "ngpus", "ngpu", "gpu", "devices", "worldsize", "nproc", "nprocpernode"), _LAUNCHER),
    **dict.fromkeys(("gpuid", "gpuids"), "CUDA_VISIBLE_DEVICES=0 in front of the command chooses GPUs"),
    **dict.fromkeys(
        ("eval", "evaluate", "evalonly", "doeval", "dotest", "test", "testonly", "evaluateonly"), _EVALUATE
    ),
    **dict.fromkeys(("dotrain", "train"), "a main_*.py script trains; --size_epoch says how long"),
    **dict.fromkeys(
        ("warmup", "warmupsteps", "warmupratio", "warmupepochs", "warmupproportion", "numwarmupsteps"),
        "the schedule is the released one: it warms up over the first tenth of the steps",
    ),
}


def _bare(name: str) -> str:
    return "".join(letter for letter in name.lower() if letter.isalnum())


def advice(name: str, valid: Iterable[str], dashes: str) -> str:
    """Advice on what to write instead of an unknown option."""
    name = name[:LIMIT]  # comparing long names is slow
    bare, spelt = _bare(name), {_bare(option): option for option in valid}
    if bare in spelt:
        return f"did you mean {dashes}{spelt[bare]}?"
    if bare in _OURS:
        return f"here it is {dashes}{_OURS[bare]}"
    if bare in _INSTEAD:
        return _INSTEAD[bare]
    nearest = difflib.get_close_matches(name.replace("-", "_").lower(), spelt.values(), n=1, cutoff=0.5)
    return f"did you mean {dashes}{nearest[0]}?" if nearest else "--help lists them all"
