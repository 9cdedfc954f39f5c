import builtins
import subprocess
import sys

import pytest

from lavender.runtime.torchvision_ops import ensure_torchvision


def test_torchvision_imports_afterwards():
    lines = [
        "from lavender.runtime.torchvision_ops import ensure_torchvision",
        "ensure_torchvision()",
        "ensure_torchvision()",
        "import torchvision.transforms.functional",
        "import gc; gc.collect()",
        "import torch; torch.ops.torchvision.nms",
    ]
    done = subprocess.run([sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


def test_another_fault_is_not_hidden(monkeypatch: pytest.MonkeyPatch):
    plain_import = builtins.__import__

    def broken_import(name, *arguments):
        if name == "torchvision":
            raise RuntimeError("something else")
        return plain_import(name, *arguments)

    monkeypatch.delitem(sys.modules, "torchvision", raising=False)
    monkeypatch.setattr(builtins, "__import__", broken_import)
    with pytest.raises(RuntimeError, match="something else"):
        ensure_torchvision()
