"""The name of weights: it follows from all of them, and from nothing else."""

from pathlib import Path

import torch

from lavender.models.checkpoint_folder import read_state
from lavender.models.lavender import Heads
from lavender.models.weights import load_state, weights_digest


def test_any_weight_changes_it(make_model):
    """Of every third tensor the first number or the last, by the least that it can."""
    model = make_model()
    before = weights_digest(model)
    assert len(before) == 64
    for number, (name, tensor) in enumerate([*model.state_dict().items()][::3]):
        flat, place = tensor.view(-1), -(number % 2)
        kept = flat[place].clone()
        flat[place] = torch.nextafter(kept, torch.tensor(9e9)) if kept.is_floating_point() else kept + 1
        assert weights_digest(model) != before, name
        flat[place] = kept
    assert weights_digest(model) == before


def test_names_shapes_and_precision_belong_to_it():
    def digest(name: str, rows: int, columns: int, dtype: torch.dtype = torch.float32) -> str:
        return weights_digest(torch.nn.ParameterDict({name: torch.zeros(rows, columns, dtype=dtype)}))

    digests = [digest("a", 2, 8), digest("b", 2, 8), digest("a", 8, 2), digest("a", 4, 4)]
    digests += [digest("a", 2, 8, torch.bfloat16), digest("a", 1, 8, torch.float64), digest("a", 2, 9)]
    assert len(set(digests)) == len(digests)
    assert digest("a", 2, 8) == digests[0]


def test_two_weights_that_change_places_change_it(make_model):
    model = make_model()
    before = weights_digest(model)
    query, key = (getattr(model.trsfr.layer[0].attention.self, name).weight.data for name in ("query", "key"))
    query[:], key[:] = key.clone(), query.clone()
    assert weights_digest(model) != before


def test_the_file_does_not_matter(make_model, tmp_path: Path):
    """Saved under another name, in another order, with other things beside it, and loaded into another model."""
    model, other = make_model(), make_model()
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.zero_()
    expected, state = weights_digest(model), model.state_dict()
    assert weights_digest(other) != expected
    torch.save({"state_dict": dict(reversed(state.items())), "epoch": 3}, tmp_path / "x.pth")
    load_state(other, read_state(tmp_path / "x.pth"), "x.pth")
    assert weights_digest(other.train()) == expected
    assert weights_digest(make_model(Heads(mlm=False))) != expected
