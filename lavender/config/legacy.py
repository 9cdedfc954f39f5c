"""Keys of released configurations that are accepted and have no effect."""

# Keys of released configs, and of the args.json of released runs, without effect here.
LEGACY = {
    "limited_samples": "data_ratio takes a part of the training data",
    "use_asr": "no task reads speech transcripts",
    "append_pred_mf_cap": "no task reads generated captions",
    "pred_mf_cap_only": "no task reads generated captions",
    "alternate_asr_pred_cap": "no task reads generated captions",
    "on_memory": "captions are held in memory as needed",
    "is_decoder": "captioning always decodes with a key/value cache",
    "attn_mask_type": "captioning is always seq2seq, all else is full",
    "num_return_sequences": "num_keep_best says how many captions are kept",
    "num_fsm_states": "captions are decoded without a grammar",
    "size_txt_pre": "no task has a text before the text",
    "patch_size": "Video Swin's patches fix it",
    "tokenizer": "txt_backbone brings its own",
    "local_rank": "ranks come from the launcher's environment",
    "distributed": "it follows from the launcher's environment",
    "num_gpus": "it follows from the launcher's environment",
    "num_nodes": "it follows from the launcher's environment",
    "effective_batch_size": "it follows from size_batch and the number of processes",
    "max_iter": "it follows from the data and size_epoch",
    "iter_per_ep": "it follows from the data",
}
