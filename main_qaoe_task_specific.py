"""Question answering, task-specific baseline: an MLP over a closed vocabulary.

python -m torch.distributed.launch --nproc_per_node=8 --master_port=5566 main_qaoe_task_specific.py \
    --config _args/args_msrvtt-qa.json --path_output _snapshot --path_ckpt _models/ckpt_lavender.pt
"""

from lavender.engine.start import main

if __name__ == "__main__":
    main("lavender.tasks.qaoe:QAOETaskSpecificTask", kind="qaoe")
