"""python _tools/export.py --checkpoint _snapshot/RUN/ckpt_violet_msrvtt-qa_5.pt --output exported

Writes a checkpoint as a folder: weights as safetensors, config.json, the vocabulary, the run's args.json and README.md,
a model card with the results of the run. A script takes `--path_ckpt exported`; in Python
`lavender.models.pretrained.load_pretrained("exported")` is the model. `--push OWNER/NAME` uploads it to the Hugging
Face hub. And back to the released layout, with the same tensors under the same names:

python _tools/export.py --to_pt exported --output lavender.pt
"""

import argparse
from pathlib import Path

from _root import run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--checkpoint", type=Path, help="the file to export; args.json beside it is read")
    source.add_argument("--to_pt", type=Path, metavar="FOLDER", help="an exported folder to write as a .pt file")
    parser.add_argument("--output", required=True, type=Path, help="the folder (with --to_pt: the file) to write")
    parser.add_argument("--txt_backbone", default="", help="BERT of the text embeddings, if args.json does not name it")
    parser.add_argument("--fusion_encoder", default="", help="BERT of the fusion encoder, the same")
    parser.add_argument("--vis_backbone", default="", help="the video backbone, the same: timm:NAME")
    parser.add_argument("--size_img", default=0, type=int, help="pixels a side of the frames, the same; for timm:NAME")
    parser.add_argument("--push", default="", metavar="OWNER/NAME", help="upload the folder to the Hugging Face hub")
    parser.add_argument("--private", action="store_true", help="with --push: only its owner sees it")
    arguments = parser.parse_args()
    if arguments.private and not arguments.push:
        parser.error("--private belongs to --push OWNER/NAME")
    if arguments.push and arguments.to_pt:
        parser.error("--push uploads an exported folder: it goes with --checkpoint")

    from lavender.inference.hub import check_upload, push  # takes seconds, not needed for --help
    from lavender.inference.model_card import CARD_FILE, write_card
    from lavender.models.pretrained import export, to_pt

    if arguments.to_pt:
        to_pt(arguments.to_pt, arguments.output)
        print(f"{arguments.output}: written")
        return
    if arguments.push:
        check_upload(arguments.push)
    names = ("txt_backbone", "fusion_encoder", "vis_backbone", "size_img")
    options = {name: getattr(arguments, name) for name in names}
    description = export(arguments.checkpoint, arguments.output, **options)
    heads = [*(["fc_mtm"] if description.mlm else []), *description.classifiers]
    backbone = ", ".join(f"{name} {value}" for name, value in description.backbone.items())
    print(f"{arguments.output}: {backbone}, heads {', '.join(heads) or 'none'}")
    for name in description.unused:
        print(f"  kept, though no part of the model has it: {name}")
    if not write_card(arguments.checkpoint, arguments.output, description, arguments.push):
        print(f"  {arguments.output / CARD_FILE} was changed by hand and stays as it is")
    if arguments.push:
        print(f"{push(arguments.output, arguments.push, arguments.private)}: uploaded")


if __name__ == "__main__":
    run(main)
