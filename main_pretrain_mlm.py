"""Pretraining by masked language modelling only (masked tokens, and "true"/"false" for matching).

python -m torch.distributed.launch --nproc_per_node=8 --master_port=5566 main_pretrain_mlm.py \
    --config _args/args_pretrain.json --path_output _snapshot
"""

from lavender.engine.start import main

if __name__ == "__main__":
    main("lavender.tasks.pretrain:PretrainTask", kind="pretrain")
