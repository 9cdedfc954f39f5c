"""Recall and ranks of text-to-video retrieval over a whole split; every GPU of the machine is used.

python eval_retrieval_tsv.py --config _args/args_msrvtt-retrieval.json \
    --path_output _snapshot --path_ckpt _snapshot/RUN/ckpt_violet_msrvtt-retrieval_10.pt
"""

from lavender.engine.start import main

if __name__ == "__main__":
    main("lavender.tasks.retrieval:RetrievalTask", kind="retrieval", work="lavender.engine.gallery:evaluate")
