"""`_tools/export.py` as its users run it."""

import importlib.util
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from lavender.models.pretrained import load_pretrained
from tests.warm import warm

ROOT = Path(__file__).parents[2]


def start(*arguments: object, folder: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """The tool in a process of its own."""
    return warm().run(ROOT / "_tools" / "export.py", *arguments, cwd=folder)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys) -> Callable[..., tuple[int | None, str, str]]:
    """The tool in this process, from the folder of the test, as it takes seconds to start: code, stdout, stderr."""

    def tool(*arguments: object) -> tuple[int | None, str, str]:
        monkeypatch.chdir(tmp_path)
        monkeypatch.syspath_prepend(ROOT / "_tools")
        monkeypatch.setattr(sys, "argv", ["export.py", *map(str, arguments)])
        spec = importlib.util.spec_from_file_location("export_tool", ROOT / "_tools" / "export.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        with pytest.raises(SystemExit) as left:
            module.run(module.main)
        return (left.value.code, *capsys.readouterr())

    return tool


@pytest.mark.parametrize("folder", [ROOT, ROOT / "_tools"])
def test_help_from_both_folders(folder: Path):
    done = start("--help", folder=folder)
    assert done.returncode == 0, done.stderr
    assert "python _tools/export.py --checkpoint" in done.stdout
    assert "python _tools/export.py --to_pt" in done.stdout


def test_out_and_back(make_model, kit: Path, tmp_path: Path, run):
    model = make_model()
    (tmp_path / "run").mkdir()
    torch.save(model.state_dict(), tmp_path / "run" / "ckpt.pt")
    berts = {"txt_backbone": str(kit / "bert_micro"), "fusion_encoder": str(kit / "bert_micro")}
    (tmp_path / "run" / "args.json").write_text(json.dumps(berts))
    done = start("--checkpoint", "run/ckpt.pt", "--output", "exported", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "exported: vis_backbone_size micro, heads fc_mtm\n"
    state = load_pretrained(tmp_path / "exported").state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in model.state_dict().items())
    code, out, _ = run("--to_pt", "exported", "--output", "back/lavender.pt")
    assert (code, out) == (None, "back/lavender.pt: written\n")
    back = torch.load(tmp_path / "back" / "lavender.pt", weights_only=True)
    assert back.keys() == state.keys()
    assert all(torch.equal(back[name], tensor) for name, tensor in state.items())


def test_berts_by_option_and_what_is_kept(make_model, kit: Path, tmp_path: Path, run):
    torch.save({**make_model().state_dict(), "old.weight": torch.ones(1)}, tmp_path / "ckpt.pt")
    bert = kit / "bert_micro"
    options = ("--txt_backbone", bert, "--fusion_encoder", bert)
    code, out, _ = run("--checkpoint", "ckpt.pt", "--output", "exported", *options)
    assert code is None
    assert "  kept, though no part of the model has it: old.weight\n" in out
    assert not (tmp_path / "exported" / "args.json").exists()


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("--checkpoint", "none.pt", "--output", "out"), "none.pt: no such checkpoint"),
        (("--to_pt", "none", "--output", "out.pt"), "none: no config.json of an exported model there"),
        (("--output", "out"), "one of the arguments --checkpoint --to_pt is required"),
        (("--checkpoint", "a.pt", "--to_pt", "b", "--output", "out"), "not allowed with argument"),
        (("--checkpoint", "a.pt", "--output", "out", "--private"), "--private belongs to --push"),
        (("--to_pt", "a", "--output", "out", "--push", "me/it"), "--push uploads an exported folder"),
        (("--checkpoint", "a.pt", "--output", "out", "--push", "me"), "OWNER/NAME"),
        (("--checkpoint", "a.pt"), "the following arguments are required: --output"),
    ],
)
def test_faults_are_one_line(tmp_path: Path, arguments: tuple, complaint: str, run):
    code, _, err = run(*arguments)
    assert code == 2
    assert complaint in err.splitlines()[-1]
    assert list(tmp_path.iterdir()) == []
