"""A training step lets the host run ahead: no loss reads what the device computes (`tests/unit/host_reads.py`)."""

import pytest
import torch

from lavender.data.batch import with_label_positions
from lavender.data.loaders import training_loader
from lavender.tasks.multi_task import MultiTask, MultiTaskMultiHeadTask
from lavender.tasks.pretrain import PretrainTask, PretrainTaskSpecificTask
from tests.unit.host_reads import host_reads


def test_what_is_counted():
    values = torch.arange(3.0)
    with host_reads() as seen:
        values.tolist(), float(values[0]), values[values > 1], values.nonzero(), torch.tensor(2.0), bool(values[1])
    assert seen == ["tolist", *["_local_scalar_dense"], "index", "nonzero", "lift_fresh", "_local_scalar_dense"]


@pytest.mark.parametrize("kind", [PretrainTask, PretrainTaskSpecificTask])
def test_pretraining(config, model_of, kind):
    task = kind(config)
    model, batch = model_of(task), with_label_positions(next(iter(task.parts[0].loader())))
    task.loss(model, batch)  # what is made once a shape
    with host_reads() as seen:
        task.loss(model, batch)["loss"].backward()
    assert seen == []


@pytest.mark.parametrize("kind", [MultiTask, MultiTaskMultiHeadTask])
def test_downstream_tasks(options, model_of, kind):
    task = kind(options())
    model = model_of(task)
    assert len(task.training_sets) > 3
    for name, dataset in task.training_sets.items():
        batch = {**with_label_positions(next(iter(training_loader(dataset)))), "task": name}
        task.loss(model, batch)
        with host_reads() as seen:
            task.loss(model, batch)["loss"].backward()
        assert seen == [], name
