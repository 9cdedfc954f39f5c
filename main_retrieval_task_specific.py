"""Text-to-video retrieval with the task-specific head: an MLP scores each pair of a batch.

python -m torch.distributed.launch --nproc_per_node=8 --master_port=5566 main_retrieval_task_specific.py \
    --config _args/args_msrvtt-retrieval.json --path_output _snapshot --path_ckpt _models/lavender_task-specific.pt
"""

from lavender.engine.start import main

if __name__ == "__main__":
    main("lavender.tasks.retrieval:RetrievalTaskSpecificTask", kind="retrieval")
