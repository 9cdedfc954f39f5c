"""Multiple choice by matching, task-specific baseline: an MLP scores each option's text.

python -m torch.distributed.launch --nproc_per_node=8 --master_port=5566 main_retmc_task_specific.py \
    --config _args/args_lsmdc-mc.json --path_output _snapshot --path_ckpt _models/ckpt_lavender.pt
"""

from lavender.engine.start import main

if __name__ == "__main__":
    main("lavender.tasks.retmc:RetMCTaskSpecificTask", kind="qamc")
