import json
from pathlib import Path

import pytest

from lavender.config.inherit import inherit_from_checkpoint
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
