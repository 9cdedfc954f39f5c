import pytest
import torch
from torch import nn
from transformers import BertConfig

from lavender.models.backbones.video_swin import VideoSwin
from lavender.models.encoders import Encoded
from lavender.models.lavender import TASK_TOKENS, Heads, Lavender

CLASSIFIER = Heads(mlm=False, task_tokens=False, classifiers={"fc": 1, "fc_qaoe_msvd_qa": 7})


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(3)


@pytest.fixture
def model(make_model) -> Lavender:
    return make_model()


def text_of(model: Lavender, batch: int = 2, length: int = 5) -> Encoded:
    return model.encode_text(torch.randint(1, 350, (batch, length)), torch.ones(batch, length, dtype=torch.long))


def test_heads_are_those_that_are_asked_for(make_model):
    def names(heads: Heads) -> set[str]:
        return {name.split(".")[0] for name in make_model(heads).state_dict()} - {"enc_img", "enc_txt", "trsfr"}

    assert names(Heads()) == {"fc_mtm", "emb_task"}
    assert names(CLASSIFIER) == {"fc", "fc_qaoe_msvd_qa"}
    assert names(Heads(mlm=True, task_tokens=False, classifiers={"fc": 1})) == {"fc_mtm", "fc"}


def test_classify(make_model):
    model = make_model(CLASSIFIER)
    states = torch.randn(2, 3, 64)
    assert model.classify("fc", states).shape == (2, 3, 1)
    assert torch.equal(model.classify("fc_qaoe_msvd_qa", states), model.fc_qaoe_msvd_qa(states))


def test_first_weights(kit):
    bert = BertConfig.from_pretrained(kit / "bert_micro", initializer_range=0.05)
    model = Lavender(VideoSwin("micro"), bert, bert, Heads(classifiers={"fc": 1}))
    words = model.enc_txt.emb_txt.word_embeddings
    assert (words.weight[bert.pad_token_id] == 0).all()
    for name, parameter in model.state_dict().items():
        if parameter.dtype == torch.long:
            continue
        if "relative_position_bias_table" in name:
            assert float(parameter.std()) == pytest.approx(0.02, rel=0.2), name
        elif parameter.dim() > 1 and parameter.numel() > 500:
            assert float(parameter.std()) == pytest.approx(0.05, rel=0.1), name
        elif parameter.dim() > 1:  # small tables
            assert 0.02 < float(parameter.std()) < 0.08, name
        elif name.endswith("bias") and "patch_embed" not in name:
            assert (parameter == 0).all(), name
        elif name.endswith("weight"):
            assert (parameter == 1).all(), name


def test_a_missing_video_gives_a_fresh_model_finite_gradients(model: Lavender):
    """Where every value is 0, each LayerNorm makes the gradient 1/√eps times larger."""
    img = torch.randint(0, 256, (2, 2, 3, 64, 64), dtype=torch.uint8)
    video = model.encode_video(img, torch.tensor([True, False]))
    model.fc_mtm(model.fuse(video, text_of(model))[:, -1]).logsumexp(-1).mean().backward()
    norms = {name: p.grad.norm() for name, p in model.named_parameters() if p.grad is not None}
    assert torch.stack(list(norms.values())).norm() < 1e4, max(norms, key=lambda name: norms[name])


def test_forward_runs_what_it_is_given(model: Lavender):
    assert model(lambda given, a, b: (given, a + b), 1, 2) == (model, 3)


def test_task_tokens_are_rows_of_the_table_as_they_are(model: Lavender):
    assert TASK_TOKENS == {"vtm": 0, "mc": 1, "oe": 2, "cap": 3}
    assert model.emb_task.shape == (10, 64)
    for name, row in TASK_TOKENS.items():
        token = model.task_token(name)
        assert token.states.shape == (1, 1, 64)
        assert torch.equal(token.states[0, 0], model.emb_task[row]), "no LayerNorm, no position"
        assert token.mask.tolist() == [[1]]


def test_a_prompt_is_embedded_on_its_own(model: Lavender):
    ids = torch.tensor([2, 7, 8, 3])
    prompt = model.prompt(ids)
    assert prompt.states.shape == (1, 4, 64)
    assert prompt.mask.tolist() == [[1, 1, 1, 1]]
    assert torch.equal(prompt.states, model.encode_text(ids[None], torch.ones(1, 4)).states)


@pytest.mark.parametrize("mode", ["full", "seq2seq"])
def test_what_stands_where_in_the_joined_sequence(model: Lavender, mode: str):
    video = model.encode_video(torch.randint(0, 256, (2, 2, 3, 32, 32), dtype=torch.uint8))
    text, prefix = text_of(model), model.prompt(torch.tensor([2, 7, 3]))
    assert video.states.shape == (2, 2 * (1 + 1), 64)
    assert model.fuse(video, text, attention=mode).shape == (2, 4 + 5, 64)
    states = model.fuse(video, text, prefix, attention=mode)
    assert states.shape == (2, 4 + 3 + 5, 64)
    nothing = Encoded(video.states[:, :0], video.mask[:, :0])
    joined = Encoded(torch.cat([video.states, prefix.states.expand(2, -1, -1)], 1), torch.ones(2, 7, dtype=torch.long))
    assert torch.allclose(model.fuse(joined, text, attention=mode), states, atol=1e-5)
    assert torch.isfinite(model.fuse(nothing, text, attention=mode)).all(), "text alone"


def test_a_prefix_is_real_for_every_sample(model: Lavender):
    video = Encoded(torch.randn(2, 3, 64), torch.ones(2, 3, dtype=torch.long))
    text = text_of(model)
    outputs = [model.fuse(video, text, model.prompt(torch.tensor(ids)))[:, -5:] for ids in ([2, 7, 3], [2, 9, 3])]
    assert ((outputs[0] - outputs[1]).abs().amax((1, 2)) > 1e-3).all()


def test_low_precision_weights_take_byte_frames(model: Lavender):
    model.bfloat16()
    assert model.dtype == torch.bfloat16
    video = model.encode_video(torch.randint(0, 256, (1, 2, 3, 32, 32), dtype=torch.uint8))
    assert video.states.dtype == torch.bfloat16
    assert model.fuse(video, text_of(model, batch=1)).dtype == torch.bfloat16


def test_it_draws_in_training_and_not_in_evaluation(model: Lavender):
    img, ids = torch.randint(0, 256, (2, 2, 3, 64, 64), dtype=torch.uint8), torch.randint(1, 350, (2, 5))

    def states() -> list[torch.Tensor]:
        video, text = model.encode_video(img), model.encode_text(ids, torch.ones(2, 5))
        return [video.states, text.states, model.fuse(video, text)]

    with torch.no_grad():
        for first, second in zip(states(), states(), strict=True):
            assert torch.equal(first, second)
        model.train()
        for first, second in zip(states(), states(), strict=True):
            assert not torch.allclose(first, second, atol=1e-3)


def test_every_norm_of_the_model(model: Lavender):
    for name, module in model.named_modules():
        if isinstance(module, nn.LayerNorm):
            assert module.eps == (1e-5 if name.startswith("enc_img.") else 1e-12), name


def test_an_unknown_size_or_mode_is_a_fault(make_model, model: Lavender):
    with pytest.raises(KeyError, match="giant"):
        make_model(size="giant")
    with pytest.raises(KeyError, match="causal"):
        model.fuse(text_of(model), text_of(model), attention="causal")
