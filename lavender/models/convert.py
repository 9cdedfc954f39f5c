"""Foreign checkpoints: SwinBERT's, and those with a prefix before all names."""

from collections.abc import Iterable
from pathlib import Path

from lavender.models.checkpoint_file import State, plain_names

PATCH_KERNEL = "enc_img.swin.patch_embed.proj.weight"
OWN = (PATCH_KERNEL, "enc_img.emb_cls", "enc_txt.emb_txt.word_embeddings.weight")  # names in our own checkpoints
SWINBERT = {  # name prefixes in a SwinBERT checkpoint → ours
    "swin.backbone.": "enc_img.swin.",
    "fc.": "enc_img.fc.",
    "trans_encoder.bert.img_embedding.": "enc_img.img_embedding.",
    "trans_encoder.bert.embeddings.": "enc_txt.emb_txt.",
    "trans_encoder.bert.encoder.": "trsfr.",
    "trans_encoder.cls.": "fc_mtm.",
}


# --- SwinBERT ---------------------------------------------------------------------------------------------------------


def is_swinbert(state: State) -> bool:
    """Whether a checkpoint has SwinBERT's original names; one that was finetuned here has ours."""
    return any(name.startswith("trans_encoder.") for name in state)


def swinbert_names(own: Iterable[str]) -> list[str]:
    """SwinBERT's names of our weights `own`."""
    pairs = SWINBERT.items()
    return [theirs + name.removeprefix(ours) for name in own for theirs, ours in pairs if name.startswith(ours)]


def from_swinbert(state: State) -> State:
    """Renames the tensors of a SwinBERT checkpoint; unmatched ones keep their names and are reported as unused."""
    renamed = {}
    for name, tensor in state.items():
        theirs = next((prefix for prefix in SWINBERT if name.startswith(prefix)), "")
        renamed[SWINBERT.get(theirs, "") + name.removeprefix(theirs)] = tensor
    return renamed


def model_names(state: State, source: Path) -> State:
    """Removes the prefix of a LAVENDER or SwinBERT checkpoint when there is no model to compare names with."""
    return plain_names(state, [*OWN, *swinbert_names(OWN)], source)
