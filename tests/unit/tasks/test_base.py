import pytest
import torch
import torch.nn.functional as F

from lavender.config.schema import Config
from lavender.runtime.errors import ConfigError
from lavender.tasks.base import labelled_loss, select_labelled
from lavender.tasks.pretrain import PretrainTask, PretrainTaskSpecificTask


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(3)


def test_labelled_states_row_by_row():
    states = torch.randn(2, 3, 4)
    labels = torch.tensor([[-1, 7, 0], [5, -1, -1]])
    found, answers = select_labelled(states, labels)
    assert answers.tolist() == [7, 0, 5], "0 is a label like any other"
    assert torch.equal(found, torch.stack([states[0, 1], states[0, 2], states[1, 0]]))


def test_no_label_at_all():
    states, labels = select_labelled(torch.randn(2, 3, 4), torch.full((2, 3), -1))
    assert (states.shape, labels.shape) == ((0, 4), (0,))


def test_the_loss_is_the_mean_over_labelled_positions():
    logits, labels = torch.randn(5, 9), torch.tensor([0, 8, 3, 3, 1])
    expected = -torch.stack([logits[i].log_softmax(0)[label] for i, label in enumerate(labels)]).mean()
    assert torch.allclose(labelled_loss(logits, labels), expected)
    assert labelled_loss(logits.bfloat16(), labels).dtype == torch.float32


def test_without_labels_the_loss_is_0_and_every_weight_still_gets_a_gradient():
    head = torch.nn.Linear(4, 9)
    loss = labelled_loss(head(torch.empty(0, 4)), torch.empty(0, dtype=torch.long))
    loss.backward()
    assert float(loss.detach()) == 0
    assert head.weight.grad is not None
    assert not head.weight.grad.any(), "a gradient of 0, without which other processes would wait"


def test_the_loss_equals_torchs_on_ignored_labels():
    logits, labels = torch.randn(2, 3, 9), torch.tensor([[-1, 7, 0], [5, -1, -1]])
    found, answers = select_labelled(logits, labels)
    reference = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=-1)
    assert torch.allclose(labelled_loss(found, answers), reference)


# --- what every task has ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [PretrainTask, PretrainTaskSpecificTask])
@pytest.mark.parametrize("other", ["retrieval", "qamc", "qaoe", "captioning", "multi-task"])
def test_the_type_of_another_script_is_refused(config: Config, kind: type[PretrainTask], other: str):
    config.type = other
    with pytest.raises(ConfigError) as raised:
        kind(config)
    assert str(raised.value) == f'"type" is {other} in the configuration, but this script is for pretrain'


@pytest.mark.parametrize("own", ["", "pretrain"])
def test_its_own_type_may_be_left_out(config: Config, own: str):
    config.type = own
    assert PretrainTask(config).config is config


def test_the_prefix(config: Config, make_model):
    model = make_model(PretrainTask.heads)
    assert PretrainTask(config).prefix(model) is None
    config.enable_task_token = True
    token = PretrainTask(config).prefix(model)
    assert token is not None
    assert (token.states.shape, token.mask.tolist()) == ((1, 1, 64), [[1]])
    config.enable_task_token, config.enable_prompt = False, True
    task = PretrainTask(config)
    prompt = task.prefix(model)
    assert prompt is not None
    ids = torch.from_numpy(task.tokenizer.prompt("is the video-text paired, true or false?"))
    assert torch.equal(prompt.states, model.prompt(ids).states)


def test_what_no_loss_reaches(config: Config):
    assert PretrainTask(config).unused_parameters() == ("enc_img.emb_odr", "emb_task")
    config.enable_task_token = True
    assert PretrainTask(config).unused_parameters() == ("enc_img.emb_odr",)
