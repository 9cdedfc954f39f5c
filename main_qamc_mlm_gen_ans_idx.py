"""Multiple choice (TGIF-Action, TGIF-Transition): the number of the right option is predicted at `[MASK]`.

python -m torch.distributed.launch --nproc_per_node=8 --master_port=5566 main_qamc_mlm_gen_ans_idx.py \
    --config _args/args_tgif-action.json --path_output _snapshot --path_ckpt _models/ckpt_lavender.pt
"""

from lavender.engine.start import main

if __name__ == "__main__":
    main("lavender.tasks.qamc:QAMCTask", kind="qamc")
