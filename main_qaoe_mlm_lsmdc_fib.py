"""Fill in the blank (LSMDC-FiB): the missing word is predicted at the `[MASK]` of the sentence.

python -m torch.distributed.launch --nproc_per_node=8 --master_port=5566 main_qaoe_mlm_lsmdc_fib.py \
    --config _args/args_lsmdc-fib.json --path_output _snapshot --path_ckpt _models/ckpt_lavender.pt
"""

from lavender.engine.start import main

if __name__ == "__main__":
    main("lavender.tasks.qaoe:FillInTheBlankTask", kind="qaoe")
