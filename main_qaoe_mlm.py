"""Open-ended question answering (TGIF-Frame, MSRVTT-QA, MSVD-QA): the answer is predicted at `[MASK]`.

python -m torch.distributed.launch --nproc_per_node=8 --master_port=5566 main_qaoe_mlm.py \
    --config _args/args_msrvtt-qa.json --path_output _snapshot --path_ckpt _models/ckpt_lavender.pt
"""

from lavender.engine.start import main

if __name__ == "__main__":
    main("lavender.tasks.qaoe:QAOETask", kind="qaoe")
