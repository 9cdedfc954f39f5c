"""The house's import rules, read from the source: which package may import which, and what nobody may write."""

import ast
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LONGEST = 400  # lines of a file

# Each layer with those under it that it may import. The arrow is scripts → engine → tasks → {data, models} →
# {text, metrics} → config → runtime.
GROUND = {"config", "runtime"}
MAY_IMPORT = {
    "runtime": {"runtime"},
    "config": GROUND,
    "text": GROUND | {"text"},
    "metrics": GROUND | {"metrics"},
    "data": GROUND | {"text", "metrics", "data"},
    "models": GROUND | {"text", "metrics", "models"},
    "tasks": GROUND | {"text", "metrics", "data", "models", "tasks"},
    "engine": GROUND | {"text", "metrics", "data", "models", "tasks", "engine"},
    "prepare": GROUND | {"text", "metrics", "data", "prepare"},
    "lavender": {"runtime", "inference"},  # what users import and start: __init__ and predict
    "inference": GROUND | {"text", "metrics", "data", "models", "tasks", "inference"},
    "report": GROUND | {"text", "metrics", "data", "models", "tasks", "report"},
    "app": GROUND | {"data", "inference", "app"},
    "check": GROUND | {"text", "metrics", "data", "models", "check"},
    "demo": GROUND | {"text", "data", "demo"},
    "_tools": GROUND | {"data", "models", "prepare", "check", "report", "inference"},
    "script": GROUND | {"text", "metrics", "data", "models", "tasks", "engine"},
}
OPTIONAL = {
    "deepspeed",
    "fairscale",
    "av",
    "pycocoevalcap",
    "pycocotools",
    "nltk",
}  # a machine may lack them: import late
INTERFACE = {"lavender.tasks", "lavender.tasks.base", "lavender.tasks.splits"}  # what the engine knows of tasks
SHARED_TASK_MODULES = INTERFACE | {"lavender.tasks.downstream", "lavender.tasks.readouts"}  # … and tasks of each other


def files(root: Path) -> list[Path]:
    """All our source files: scripts at the top, tools, the package."""
    return sorted([*root.glob("*.py"), *root.glob("_tools/*.py"), *root.glob("lavender/**/*.py")])


def layer_of(relative: Path) -> str:
    """The row of MAY_IMPORT that a file belongs to."""
    if relative.parts[0] == "lavender":
        return relative.parts[1] if len(relative.parts) > 2 else "lavender"
    return "_tools" if relative.parts[0] == "_tools" else "script"


def imports(nodes: Iterable[ast.AST]) -> Iterator[tuple[int, str]]:
    """Line and name of everything imported by the nodes; `from a import b` gives `a` and `a.b`."""
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.lineno, "." * node.level + (node.module or "")
            yield from ((node.lineno, f"{'.' * node.level}{node.module or ''}.{alias.name}") for alias in node.names)


def violations(root: Path) -> list[str]:
    """`file:line: what is wrong`, for every rule."""
    found = []
    for path in files(root):
        relative = path.relative_to(root)
        text = path.read_text(encoding="utf-8")
        tree = ast.parse(text, str(path))
        faults = [*import_faults(root, relative, tree), *other_faults(relative, tree, text)]
        found += [f"{relative}:{line}: {fault}" for line, fault in sorted(set(faults))]
    return found


def at_the_top(tree: ast.AST) -> Iterator[ast.AST]:
    """The nodes that run when the module is imported: all but what lies inside functions."""
    yield tree
    for child in ast.iter_child_nodes(tree):
        if not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield from at_the_top(child)


def import_faults(root: Path, relative: Path, tree: ast.AST) -> Iterator[tuple[int, str]]:
    layer = layer_of(relative)
    scripts = {path.stem for path in [*root.glob("*.py"), *root.glob("_tools/*.py")]} - {"_root"}
    for line, name in imports(ast.walk(tree)):
        first = name.split(".")[0]
        if not first:
            yield line, "a relative import"
        elif name.endswith(".*"):
            yield line, f"a star import of {name.removesuffix('.*')}"
        elif first in scripts:
            yield line, f"{layer} imports the script {first}"
        elif first == "lavender" and "." in name:
            yield from ((line, fault) for fault in layer_faults(layer, relative, name.split(".")))


def layer_faults(layer: str, relative: Path, name: list[str]) -> Iterator[str]:
    target, module = name[1], ".".join(name[:3])
    if layer not in MAY_IMPORT:
        yield f"{layer} is no known layer"
    elif target not in MAY_IMPORT[layer]:
        yield f"{layer} imports {target}"
    elif target == "tasks":
        if layer == "engine" and module not in INTERFACE:
            yield f"engine imports {module}; of tasks it knows base, splits"
        elif layer == "tasks" and module not in SHARED_TASK_MODULES and relative.stem not in ("multi_task", name[2]):
            yield f"the task imports its sibling {module}"


def other_faults(relative: Path, tree: ast.AST, text: str) -> Iterator[tuple[int, str]]:
    for line, name in imports(at_the_top(tree)):
        if name in OPTIONAL:
            yield line, f"{name} is imported at the top; a machine may lack it"
    lines = text.count("\n")
    if lines > LONGEST:
        yield lines, f"{lines} lines, more than {LONGEST}"
    if layer_of(relative) != "models":
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr == "cuda" and isinstance(node.ctx, ast.Load):
            yield node.lineno, "the model names CUDA; whoever runs it says the device"
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.split(":")[0] == "cuda":
            yield node.lineno, 'the model names the device "cuda"'


def test_the_house_is_in_order():
    assert len(files(ROOT)) > 40
    assert violations(ROOT) == []


def test_every_layer_is_known():
    layers = {path.name for path in (ROOT / "lavender").iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert layers <= MAY_IMPORT.keys()


PLANTED = {
    "lavender/data/frames.py": (
        "from lavender.models.lavender import Lavender\n",
        "lavender/data/frames.py:1: data imports models",
    ),
    "lavender/models/heads.py": (
        "def f():\n    import lavender.data.tsv\n",
        "lavender/models/heads.py:2: models imports data",
    ),
    "lavender/runtime/seed.py": (
        "\nfrom lavender.config import load\n",
        "lavender/runtime/seed.py:2: runtime imports config",
    ),
    "lavender/engine/evaluator.py": (
        "from lavender.tasks import downstream\n",
        "lavender/engine/evaluator.py:1: engine imports lavender.tasks.downstream; of tasks it knows base, splits",
    ),
    "lavender/engine/run.py": (
        "from lavender.tasks import pretrain\n",
        "lavender/engine/run.py:1: engine imports lavender.tasks.pretrain; of tasks it knows base, splits",
    ),
    "lavender/tasks/qaoe.py": (
        "from lavender.tasks.base import Task\nfrom lavender.tasks.pretrain import PretrainTask\n",
        "lavender/tasks/qaoe.py:2: the task imports its sibling lavender.tasks.pretrain",
    ),
    "lavender/demo/toy.py": (
        "from lavender.engine.run import main\n",
        "lavender/demo/toy.py:1: demo imports engine",
    ),
    "_tools/extract.py": (
        "from lavender.text.tokens import TextTokenizer\n",
        "_tools/extract.py:1: _tools imports text",
    ),
    "_tools/sketch.py": (
        "import draw\n",
        "_tools/sketch.py:1: _tools imports the script draw",
    ),
    "main_two.py": (
        "from main_one import main\n",
        "main_two.py:1: script imports the script main_one",
    ),
    "lavender/text/masking.py": (
        "from lavender.config.load import *\n",
        "lavender/text/masking.py:1: a star import of lavender.config.load",
    ),
    "lavender/text/prompts.py": (
        "from . import tokens\n",
        "lavender/text/prompts.py:1: a relative import",
    ),
    "lavender/models/fusion.py": (
        "def f(x):\n    return x.cuda()\n",
        "lavender/models/fusion.py:2: the model names CUDA; whoever runs it says the device",
    ),
    "lavender/models/pairs.py": (
        'def f(x):\n    return x.to("cuda:0")\n',
        'lavender/models/pairs.py:2: the model names the device "cuda"',
    ),
    "lavender/metrics/matching.py": (
        "pass\n" * (LONGEST + 1),
        f"lavender/metrics/matching.py:{LONGEST + 1}: {LONGEST + 1} lines, more than {LONGEST}",
    ),
    "lavender/engine/engines.py": (
        "try:\n    import deepspeed\nexcept ImportError:\n    pass\n",
        "lavender/engine/engines.py:2: deepspeed is imported at the top; a machine may lack it",
    ),
    "lavender/attic/old.py": (
        "import lavender.runtime.seed\n",
        "lavender/attic/old.py:1: attic is no known layer",
    ),
}
HARMLESS = {
    "main_one.py": "from lavender.engine.start import main\nfrom lavender.tasks.pretrain import PretrainTask\n",
    "lavender/tasks/multi_task.py": "from lavender.tasks.pretrain import PretrainTask\nimport torch.cuda\n",
    "lavender/tasks/qamc.py": "from lavender.tasks.downstream import DownstreamTask\n",
    "lavender/tasks/base.py": "from lavender.data.tsv import TSVReader\nfrom lavender.models.heads import head\n",
    "lavender/engine/trainer.py": "from lavender.tasks.base import Task\ndef f():\n    import deepspeed.ops\n",
    "lavender/models/weights.py": 'NOTE = "no cuda here"\n',
    "_tools/draw.py": "from _root import run\n\nfrom lavender.data.tsv import TSVReader\n",
}


@pytest.fixture
def house(tmp_path: Path) -> Path:
    """A small house in order."""
    for name, text in HARMLESS.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


def test_what_is_allowed_passes(house: Path):
    assert violations(house) == []


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_fault_is_found(house: Path, name: str):
    text, expected = PLANTED[name]
    path = house / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    assert violations(house) == [expected]
