"""What a start imports: seconds of packages that most runs do without are left to who needs them."""

import subprocess
import sys

import pytest

SELDOM = {"transformers", "timm", "torchvision", "scipy", "sympy", "deepspeed", "fairscale", "torch._dynamo", "skimage"}


def in_a_fresh_process(*lines: str) -> str:
    done = subprocess.run([sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_run_needs_no_package_for_a_model_of_its_own():
    modules = ("tasks.multi_task", "tasks.caption", "engine.run", "models.backbones.video_swin")
    imports = ", ".join(f"lavender.{module}" for module in modules)
    seen = in_a_fresh_process(f"import sys, {imports}", f"print(*sorted({SELDOM} & set(sys.modules)))")
    assert set(seen.split()) <= {"sympy"}, seen  # some versions of torch import sympy themselves


@pytest.mark.slow
def test_torchvision_and_timm_are_importable_where_they_are_needed():
    lines = [
        "from lavender.models.backbones import video_swin_weights as swin",
        "print(swin.torchvision_weights('tiny')[0])",
    ]
    assert in_a_fresh_process(*lines).startswith("swin3d_t")
    asked = ["try: swin.fetch_timm_swin('no_such')", "except swin.WeightsError as error: print(error)"]
    assert "no_such" in in_a_fresh_process(lines[0], *asked)
