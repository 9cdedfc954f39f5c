import json
from pathlib import Path

import pytest

from lavender.config.inherit import inherit_from_checkpoint, other_task
from lavender.config.schema import Config
from lavender.runtime.errors import ConfigError


def test_what_is_inherited_must_go_with_the_rest(tmp_path: Path):
    (tmp_path / "args.json").write_text(json.dumps({"max_size_frame": 4}))
    config = Config(path_ckpt=str(tmp_path / "x.pt"), size_frame=5)
    with pytest.raises(ConfigError, match=r"args\.json .*size_frame 5 .*max_size_frame 4"):
        inherit_from_checkpoint(config)
    config = Config(path_ckpt=str(tmp_path / "x.pt"), size_frame=3)
    assert len(inherit_from_checkpoint(config)) == 1
    assert config.max_size_frame == 4


MEMBERS = [{"type": "retrieval", "task": "a-retrieval"}, {"type": "qaoe", "task": "a-qa"}]


@pytest.mark.parametrize(
    ("trained", "options", "related", "warns"),
    [
        ({"type": "qaoe", "task": "a-qa"}, {}, (), True),
        ({"type": "qaoe", "task": "a-qa"}, {"size_epoch": 1}, (), False),
        ({"type": "retrieval", "task": "b-retrieval"}, {}, (), True),
        ({"type": "retrieval", "task": "a-retrieval"}, {}, (), False),
        ({"type": "pretrain", "task": "pretrain"}, {}, (), False),
        ({"type": "retrieval", "task": "a"}, {"type": "qamc", "task": "a-mc"}, ("retrieval",), False),
        ({"type": "multi-task", "task": "all", "datasets": MEMBERS}, {}, (), False),
        ({"type": "multi-task", "task": "all", "datasets": MEMBERS[1:]}, {}, (), True),
        ({"size_img": 64}, {}, (), False),
    ],
)
def test_a_checkpoint_of_another_task(tmp_path: Path, trained: dict, options: dict, related: tuple, warns: bool):
    (tmp_path / "args.json").write_text(json.dumps(trained))
    here = {"type": "retrieval", "task": "a-retrieval", "size_epoch": 0, **options}
    warning = other_task(Config(path_ckpt=str(tmp_path / "x.pt"), **here), related)
    assert bool(warning) == warns
    if warns:
        for fact in (str(tmp_path / "x.pt"), str(tmp_path / "args.json"), "a-retrieval", "retrieval", "--path_ckpt"):
            assert fact in warning
