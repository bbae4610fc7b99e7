import pytest
import torch

from training.common.errors import UserError
from training.config.parse import from_preset
from training.loop.state import new_state
from training.loop.trainer import train
from training.model.transformer import Transformer
from training.sampling import sample_prompts
from training.tasks.prompts import PLAIN, Layout

LAYOUTS = [PLAIN, Layout(1), Layout(2), Layout(1, at=4), Layout(2, at=3), Layout(1, at=1), Layout(3, at=31)]


def config_with(*settings: str):
    return from_preset("tiny", "mixed", 0, [*settings, "model.n_ctx=40"])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_positions_are_where_the_tokens_stand(layout, generator):
    xs, ys = torch.randn(3, 16, 4, generator=generator), torch.randn(3, 16, generator=generator)
    instruction = torch.full((3, layout.n_instruction, 4), 7.0) if layout.n_instruction else None
    from training.tasks.prompts import Prompts

    tokens = Prompts(xs, ys, layout, instruction).tokens
    n_pos = layout.n_tokens(16)
    assert tokens.shape == (3, n_pos, 4)
    assert torch.equal(tokens[:, layout.x_tokens(n_pos)], xs)
    assert torch.equal(tokens[:, layout.y_tokens(n_pos), 0], ys)
    assert (tokens == 7).all(-1).sum() == 3 * layout.n_instruction
    if layout.n_instruction:
        assert (tokens[:, layout.at : layout.at + layout.n_instruction] == 7).all()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_predict_is_forward_at_the_x_tokens_and_needs_nothing_after_them(layout, generator):
    config = config_with().model
    model = Transformer(config, generator, layout)
    tokens = torch.randn(5, layout.n_tokens(16), 4, generator=generator)
    wanted = model(tokens)[:, layout.x_tokens(tokens.shape[1])]
    torch.testing.assert_close(model.predict(tokens), wanted, rtol=1e-5, atol=1e-5)
    cut = tokens.clone()
    cut[:, layout.n_needed(tokens.shape[1]) :] = 99
    assert torch.equal(model.predict(cut), model.predict(tokens))


@pytest.mark.parametrize(("tells", "coordinates"), [("class", [0, 1, 2]), ("nothing", [0, 0, 0])])
def test_one_hot_instructions_tell_the_class_apart_or_nothing(tells, coordinates):
    config = config_with("instruction.kind=one_hot", "instruction.tokens=2", f"instruction.encodes={tells}")
    for name, coordinate in zip(("linear", "quadratic", "cubic"), coordinates, strict=True):
        tokens = sample_prompts(config, name, torch.Generator().manual_seed(0), 5).tokens
        assert tokens.shape == (5, 34, 4)
        assert (tokens[:, :2] == torch.eye(4)[coordinate]).all()


def test_instructions_can_tell_inputs_apart():
    config = config_with(
        "instruction.kind=one_hot", "instruction.encodes=inputs", "data.inputs=gaussian,uniform", "instruction.at=6"
    )
    tokens = sample_prompts(config, "linear", torch.Generator().manual_seed(0), 5, inputs="uniform").tokens
    assert (tokens[:, 6] == torch.tensor([0.0, 1.0, 0.0, 0.0])).all()


def test_an_instruction_vector_is_a_fixed_normal_vector_of_the_embedding_space(quick_settings, tmp_path):
    settings = [s for s in quick_settings if s != "--set"]
    config = from_preset(
        "tiny", "mixed", 0, [*settings, "model.n_ctx=40", "model.d_model=64", "instruction.kind=vector"]
    )
    before = new_state(config, "cpu").model.embed.W_E
    assert before.shape == (7, 64)
    assert before[4:].std().item() == pytest.approx(1, abs=0.15)
    train(config, tmp_path)
    from training.checkpoints.checkpoint import load

    after = load(tmp_path).model.embed.W_E
    assert torch.equal(after[4:], before[4:])
    assert not torch.equal(after[:4], before[:4])
    tokens = sample_prompts(config, "quadratic", torch.Generator().manual_seed(0), 5).tokens
    torch.testing.assert_close(tokens[:, 0] @ before, before[5].expand(5, -1))
    assert not tokens[:, 1:, 4:].any()


def test_a_class_without_instruction_is_refused():
    config = config_with("instruction.kind=one_hot")
    with pytest.raises(UserError, match=r"no instruction for quartic \(it has: linear, quadratic, cubic\)"):
        sample_prompts(config, "quartic", torch.Generator(), 5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["instruction.kind=one_hot", "model.n_ctx=32"], "needs model.n_ctx >= 33"),
        (["instruction.kind=one_hot", "model.n_dims=2"], r"needs a coordinate for each of 3 values: model.n_dims >= 3"),
        (["instruction.kind=vector", "instruction.at=32"], "prompts have only 32 tokens"),
        (["instruction.kind=vector", "instruction.at=8", "growth.points=4"], "prompts have only 8 tokens"),
    ],
)
def test_an_instruction_that_does_not_fit_is_refused(settings, message):
    with pytest.raises(UserError, match=message):
        from_preset("tiny", "mixed", 0, ["model.n_ctx=40", *settings])


def test_growth_makes_prompts_short_and_narrow_at_first(quick_config):
    prompts = sample_prompts(quick_config, "linear", torch.Generator().manual_seed(0), 6, n_points=5, n_dims=2)
    assert prompts.xs.shape == (6, 5, 4)
    assert prompts.xs[..., :2].abs().min() > 0
    assert not prompts.xs[..., 2:].any()


def test_sparse_prompts_that_grow_use_the_dimensions_that_have_grown():
    config = from_preset("tiny", "single:sparse_linear:1", 0)
    prompts = sample_prompts(config, "sparse_linear:1", torch.Generator().manual_seed(0), 200, n_dims=1)
    assert (prompts.xs[..., 1:] == 0).all()
    assert (prompts.ys != 0).any(1).all()
