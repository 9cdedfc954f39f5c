"""Multiple choice, task-specific baseline: an MLP with one class per option.

python -m torch.distributed.launch --nproc_per_node=8 --master_port=5566 main_qamc_task_specific.py \
    --config _args/args_tgif-action.json --path_output _snapshot --path_ckpt _models/ckpt_lavender.pt
"""

from lavender.engine.start import main

if __name__ == "__main__":
    main("lavender.tasks.qamc:QAMCTaskSpecificTask", kind="qamc")
