"""Weights from outside: SwinBERT's, and those of any model with a prefix before its names."""

from collections.abc import Iterable
from pathlib import Path

from lavender.models.checkpoint_file import State, plain_names

PATCH_KERNEL = "enc_img.swin.patch_embed.proj.weight"
OWN = (PATCH_KERNEL, "enc_img.emb_cls", "enc_txt.emb_txt.word_embeddings.weight")  # names that checkpoints of ours have
SWINBERT = {  # beginnings of the names in a SwinBERT checkpoint → of ours
    "swin.backbone.": "enc_img.swin.",
    "fc.": "enc_img.fc.",
    "trans_encoder.bert.img_embedding.": "enc_img.img_embedding.",
    "trans_encoder.bert.embeddings.": "enc_txt.emb_txt.",
    "trans_encoder.bert.encoder.": "trsfr.",
    "trans_encoder.cls.": "fc_mtm.",
}


# --- SwinBERT ---------------------------------------------------------------------------------------------------------


def is_swinbert(state: State) -> bool:
    """Whether a checkpoint has SwinBERT's own names (one that was trained further here has ours)."""
    return any(name.startswith("trans_encoder.") for name in state)


def swinbert_names(own: Iterable[str]) -> list[str]:
    """Our names as a SwinBERT checkpoint has them."""
    pairs = SWINBERT.items()
    return [theirs + name.removeprefix(ours) for name in own for theirs, ours in pairs if name.startswith(ours)]


def from_swinbert(state: State) -> State:
    """A SwinBERT checkpoint under our names; what has no place here keeps its own, and is reported as left over."""
    renamed = {}
    for name, tensor in state.items():
        theirs = next((prefix for prefix in SWINBERT if name.startswith(prefix)), "")
        renamed[SWINBERT.get(theirs, "") + name.removeprefix(theirs)] = tensor
    return renamed


def model_names(state: State, source: Path) -> State:
    """A checkpoint of LAVENDER or SwinBERT without its prefix, where no model is there whose names it could have."""
    return plain_names(state, [*OWN, *swinbert_names(OWN)], source)
