"""Pretraining, task-specific baseline: masked language modelling, and an MLP for matching.

python -m torch.distributed.launch --nproc_per_node=8 --master_port=5566 main_pretrain_task_specific.py \
    --config _args/args_pretrain.json --path_output _snapshot
"""

from lavender.engine.start import main

if __name__ == "__main__":
    main("lavender.tasks.pretrain:PretrainTaskSpecificTask", kind="pretrain")
