"""Video captioning: training, and captions with their metrics after each epoch.

python -m torch.distributed.launch --nproc_per_node=8 --master_port=5566 main_caption.py \
    --config _args/args_msrvtt-cap.json --path_output _snapshot --path_ckpt _models/lavender.pt
"""

from lavender.engine.start import main

if __name__ == "__main__":
    main("lavender.tasks.caption:CaptionTask", kind="captioning")
