"""Captions and questions as token ids: tokenizer, prompts, masking."""
