"""What `--help` and `--help-all` show."""

import pytest

from lavender.config.load import load_config
from lavender.config.options import options


def test_help_lists_every_option_with_its_default(capsys):
    with pytest.raises(SystemExit) as caught:
        load_config(["--help"])
    assert caught.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    assert all(f"--{name} " in text for name in options())
    assert all(f" {option.group}: " in text for option in options().values())
    assert "(default: 1.2e-05)" in text
    assert "local_rank" in text


def helped(capsys, words: list[str], kind: str) -> str:
    with pytest.raises(SystemExit) as caught:
        load_config(words, kind)
    assert caught.value.code == 0
    return " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("kind", "own", "others"),
    [
        ("captioning", {"num_beams", "train_yaml", "lr"}, {"size_option", "save_top_k", "pretrain_tasks", "datasets"}),
        ("pretrain", {"size_part", "vtm_negatives", "lr"}, {"num_beams", "size_vocab", "save_top_k", "test_yaml"}),
        ("multi-task", {"datasets", "num_beams", "size_option"}, {"pretrain_tasks", "size_part"}),
    ],
)
def test_help_shows_the_options_of_the_script(capsys, kind: str, own: set[str], others: set[str]):
    text = helped(capsys, ["--help"], kind)
    assert all(f"--{name} " in text for name in own)
    assert not any(f"--{name} " in text for name in others)
    assert "--help-all" in text
    everything = helped(capsys, ["--help-all"], kind)
    assert all(f"--{name} " in everything for name in options())


def test_an_option_of_another_task_is_still_one():
    assert load_config(["--num_beams", "3"], "pretrain").num_beams == 3
