"""Multi-task training with the MLM head: one model for retrieval, question answering, multiple choice and captioning.

python -m torch.distributed.launch --nproc_per_node=8 --master_port=5566 main_multi_task_mlm.py \
    --config _args/args_multi-task_all.json --path_output _snapshot --path_ckpt _models/lavender.pt
"""

from lavender.engine.start import main

if __name__ == "__main__":
    main("lavender.tasks.multi_task:MultiTask", kind="multi-task")
