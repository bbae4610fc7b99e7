import numpy as np
import pytest
import torch

from interp.names import SCORE_NAMES, WEIGHTING_NAMES
from interp.scores.kinds import SCORES, ScoreKind, tokens_of, uniform_attention
from interp.scores.measured import MEASURED
from interp.scores.score import Measure, check_scores, measures_of, prompt_scores, score, score_all, weigh
from interp.scores.weightings import WEIGHTINGS, weighting
from training.checkpoints.checkpoint import Checkpoint
from training.common.errors import UserError
from training.config.parse import from_preset
from training.evaluation.evaluate import evaluation_prompts
from training.model.transformer import Transformer
from training.tasks.prompts import Layout


@pytest.fixture
def told_checkpoint(tmp_path) -> Checkpoint:
    """An untrained model whose prompts begin with an instruction token."""
    settings = ["model.init_std=0.3", "instruction.kind=one_hot", "model.n_ctx=33"]
    config = from_preset("tiny", "mixed", 0, settings)
    model = Transformer(config.model, torch.Generator().manual_seed(3), config.layout)
    return Checkpoint("told", tmp_path, config, 0, model.requires_grad_(False))


def by_hand(kind: str, attention: np.ndarray, xs: np.ndarray, pair: np.ndarray, role: np.ndarray) -> float:
    """A score of one prompt from its definition, token by token; `role` is x, y or i, `pair` counts from 0."""
    n_pos = len(pair)

    def looks_at(q: int) -> list[int]:
        before = [k for k in range(n_pos) if role[k] != "i" and pair[k] < pair[q]]
        earlier = {what: [k for k in before if role[k] == what] for what in "xy"}
        if role[q] == "i":
            return []
        if kind in ("retrospective", "paper"):
            wanted = pair[q] < (6 if kind == "paper" else n_pos)
            return [k for k in range(n_pos) if role[q] == "y" and role[k] == "x" and pair[k] == pair[q] and wanted]
        if kind in ("previous_token", "self", "first_token"):
            return [{"previous_token": q - 1, "self": q, "first_token": 0}[kind]] if q else []
        if role[q] != ("y" if kind == "y_to_earlier_y" else "x"):
            return []
        if kind == "lookup":
            if not earlier["x"]:
                return []
            distances = [np.linalg.norm(xs[pair[q]] - xs[pair[k]]) for k in earlier["x"]]
            chosen = pair[earlier["x"][int(np.argmin(distances))]]
            return [k for k in earlier["y"] if pair[k] == chosen]
        return earlier[kind[-1]]

    sums = [sum(attention[q, k] for k in looks_at(q)) for q in range(n_pos) if looks_at(q)]
    return float(np.mean(sums)) * (0.5 if kind == "paper" else 1)


@pytest.mark.parametrize("layout", [Layout(), Layout(2), Layout(1, at=3)], ids=["plain", "in front", "inside"])
@pytest.mark.parametrize("kind", SCORES)
def test_scores_are_their_definitions(kind, layout, generator):
    n_points = 8
    n_pos = layout.n_tokens(n_points)
    xs = torch.randn(3, n_points, 2, generator=generator)
    attention = torch.randn(3, 2, n_pos, n_pos, generator=generator) + torch.full((n_pos, n_pos), -torch.inf).triu(1)
    attention = attention.softmax(-1)
    stream = [(i, what) for i in range(n_points) for what in "xy"]
    stream[layout.at : layout.at] = [(-1, "i")] * layout.n_instruction
    pair, role = (np.array(column) for column in zip(*stream, strict=True))
    scores = weigh(attention, SCORES[kind].weights(xs, layout))
    for prompt in range(3):
        for head in range(2):
            ours = by_hand(kind, attention[prompt, head].numpy(), xs[prompt].numpy(), pair, role)
            assert scores[prompt, head].item() == pytest.approx(ours, rel=1e-5)
    even = by_hand(kind, uniform_attention(n_pos).numpy(), xs[0].numpy(), pair, role)
    assert SCORES[kind].chance(n_points, layout) == pytest.approx(even)


def test_the_look_up_score_of_a_hand_made_pattern():
    """x_3 is nearest to x_1 and x_4 to x_3: the head looks right the first time and half right the second."""
    xs = torch.tensor([[[0.0], [5.0], [1.0], [1.4]]])
    attention = torch.eye(8)
    attention[2] = torch.eye(8)[1]  # x_2 has only y_1
    attention[4] = torch.eye(8)[1]
    attention[6] = (torch.eye(8)[5] + torch.eye(8)[3]) / 2
    weights = SCORES["lookup"].weights(xs)
    assert weigh(attention[None, None], weights).item() == pytest.approx((1 + 1 + 0.5) / 3)
    assert weigh(attention[None, None], SCORES["x_to_earlier_y"].weights(xs)).item() == 1


def test_look_up_counts_all_that_are_equally_near():
    xs = torch.tensor([[[0.0], [9.0], [0.0], [0.0]]])
    (weights,) = SCORES["lookup"].weights(xs)
    assert (weights[6] > 0).nonzero().flatten().tolist() == [1, 5]
    assert SCORES["lookup"].weights(xs)[0].sum(-1)[[2, 4, 6]].tolist() == pytest.approx([1 / 3, 1 / 3, 2 / 3])


def test_repeated_x_have_a_chance_of_their_own(random_checkpoint):
    result = score(random_checkpoint, ["linear", "associative_recall"], kind="lookup", n_prompts=16)
    assert result.chances["associative_recall"] > 1.5 * result.chances["linear"]
    assert set(result.table["chance"]) == set(result.chances.values())


def without_differences(checkpoint: Checkpoint) -> Checkpoint:
    """The model cannot tell tokens apart, so that every key is like every other."""
    checkpoint.model.embed.W_E.zero_()
    checkpoint.model.pos_embed.W_pos[1:] = checkpoint.model.pos_embed.W_pos[:1]
    return checkpoint


@pytest.mark.parametrize("by", WEIGHTING_NAMES)
@pytest.mark.parametrize("which", ["random_checkpoint", "told_checkpoint"])
def test_a_model_that_cannot_tell_tokens_apart_scores_at_chance(by, which, request):
    checkpoint = without_differences(request.getfixturevalue(which))
    measures = [*measures_of(["all"]), *measures_of(["all"], [slice(2, 5), slice(15, 16)])]
    for result in score_all(checkpoint, ["linear"], measures=measures, by=by, n_prompts=4):
        np.testing.assert_allclose(result.values["linear"], result.chance, rtol=1e-4, err_msg=result.kind.name)
        known = None if result.kind.n_pairs else result.points
        assert result.chance == pytest.approx(
            SCORES[result.kind.name].chance(16, checkpoint.config.layout, known), rel=1e-6
        )


def test_values_of_equal_length_leave_the_pattern_as_it_is(random_checkpoint):
    """Keys differ, what they move does not: then `value` is `pattern`."""
    for block in random_checkpoint.model.layers:
        block.attn.W_V.zero_()
    pattern, value = (score(random_checkpoint, ["linear"], by=by, n_prompts=8) for by in ("pattern", "value"))
    assert np.ptp(pattern.values["linear"]) > 0.01
    np.testing.assert_allclose(pattern.values["linear"], value.values["linear"], rtol=1e-4)


def test_scores_are_those_of_hooked_transformers_patterns(random_checkpoint):
    from interp.model.hooked_transformer import hooked

    prompts = evaluation_prompts(random_checkpoint.config, "cubic", n_prompts=5, seed=0)
    _, cache = hooked(random_checkpoint).run_with_cache(prompts.tokens)
    names = ["retrospective", "paper", "lookup", "y_to_earlier_y"]
    ours = prompt_scores(random_checkpoint.model, prompts, measures_of(names), WEIGHTINGS["pattern"]).heads
    for layer in range(3):
        pattern = cache[f"blocks.{layer}.attn.hook_pattern"]
        own = torch.stack([pattern[:, :, 2 * i + 1, 2 * i] for i in range(16)])
        theirs = [own.mean(0), own[:6].sum(0) / 12]
        distance = (prompts.xs[:, :, None] - prompts.xs[:, None]).norm(dim=-1)
        nearest = [[int(distance[b, q, :q].argmin()) for q in range(1, 16)] for b in range(5)]
        rows = [pattern[b, :, range(2, 32, 2), [2 * i + 1 for i in nearest[b]]].mean(-1) for b in range(5)]
        theirs.append(torch.stack(rows))
        theirs.append(torch.stack([pattern[:, :, q, 1:q:2].sum(-1) for q in range(3, 32, 2)]).mean(0))
        for measure in range(4):  # attention is at most 1
            np.testing.assert_allclose(ours[:, measure, layer], theirs[measure], rtol=0, atol=1e-5)


def test_an_instruction_shifts_every_token(told_checkpoint):
    tokens = tokens_of(torch.zeros(1, 16, 4), told_checkpoint.config.layout)
    assert tokens.pair.tolist() == [-1, *(i for i in range(16) for _ in "xy")]
    prompts = evaluation_prompts(told_checkpoint.config, "linear", n_prompts=3, seed=0)
    ours = prompt_scores(told_checkpoint.model, prompts, measures_of(["retrospective"]), WEIGHTINGS["pattern"]).heads
    seen = {}
    told_checkpoint.model(prompts.tokens, {"blocks.2.attn.hook_pattern": lambda p: seen.setdefault("pattern", p)})
    wanted = torch.stack([seen["pattern"][:, :, 2 * i + 2, 2 * i + 1] for i in range(16)]).mean(0)
    np.testing.assert_allclose(ours[:, 0, 2], wanted, rtol=1e-5)


@pytest.mark.parametrize("kind", [name for name in SCORES if name != "paper"])
def test_a_range_of_pairs_is_the_mean_over_its_queries(kind, random_checkpoint):
    """Ranges that divide the prompt add up, each with its number of queries; so do their chance levels."""
    ranges = [slice(0, 1), slice(1, 4), slice(4, 16)]
    if SCORES[kind].weights(torch.randn(1, 16, 4))[0].sum(-1)[:2].sum() == 0:
        ranges = ranges[1:]  # the first pair asks nothing
    measures = [Measure(SCORES[kind]), *(Measure(SCORES[kind], points) for points in ranges)]
    whole, *parts = score_all(random_checkpoint, ["linear"], measures=measures, n_prompts=8)
    per_pair = 2 if kind in ("previous_token", "self", "first_token") else 1
    n_queries = [per_pair * (points.stop - points.start) - (per_pair == 2 and points.start == 0) for points in ranges]
    values = np.average([part.values["linear"] for part in parts], axis=0, weights=n_queries)
    np.testing.assert_allclose(values, whole.values["linear"], rtol=1e-5)
    assert np.average([part.chance for part in parts], weights=n_queries) == pytest.approx(whole.chance)


@pytest.mark.parametrize("setting", [{"inputs": "uniform"}, {"shift": "scale_x:3"}, {"shift": "noise:2"}])
def test_inputs_and_shifts_change_the_prompts_and_nothing_else(setting, random_checkpoint):
    plain, changed = (
        score(random_checkpoint, ["linear"], n_prompts=16),
        score(random_checkpoint, ["linear"], n_prompts=16, **setting),
    )
    assert not np.allclose(plain.values["linear"], changed.values["linear"], rtol=1e-3)
    assert plain.chance == changed.chance
    own = evaluation_prompts(random_checkpoint.config, "linear", n_prompts=16, seed=0, **setting)
    by_prompt = prompt_scores(random_checkpoint.model, own, measures_of(["retrospective"]), WEIGHTINGS["pattern"])
    np.testing.assert_array_equal(by_prompt.heads[:, 0].mean(0), changed.values["linear"])
    row = changed.table.iloc[0]
    assert (row["inputs"], row["shift"]) == (changed.inputs, changed.shift) != (plain.inputs, plain.shift)


@pytest.mark.sample(1)
@pytest.mark.parametrize("by", WEIGHTING_NAMES)
def test_scores_do_not_depend_on_how_many_are_asked_for_or_on_chunks(by, random_checkpoint, monkeypatch):
    together = score_all(random_checkpoint, ["linear"], by=by, n_prompts=12)
    monkeypatch.setattr("interp.scores.score.FLOATS", 5 * 32**2 * 10)
    for one in together:
        alone = score(random_checkpoint, ["linear"], kind=one.kind.name, by=by, n_prompts=12)
        for name in ("values", "ci_low", "ci_high"):
            np.testing.assert_allclose(getattr(one, name)["linear"], getattr(alone, name)["linear"], rtol=1e-5)


def test_interval_holds_the_mean_and_shrinks_with_prompts(random_checkpoint):
    few, many = (score(random_checkpoint, ["linear"], n_prompts=n) for n in (32, 512))
    for result in (few, many):
        assert (result.ci_low["linear"] <= result.values["linear"]).all()
        assert (result.values["linear"] <= result.ci_high["linear"]).all()
    widths = [(r.ci_high["linear"] - r.ci_low["linear"]).mean() for r in (few, many)]
    assert widths[1] < widths[0] / 2


def test_selection_prompts_are_not_test_prompts(random_checkpoint):
    streams = [
        evaluation_prompts(random_checkpoint.config, "linear", n_prompts=4, seed=0, stream=s).xs
        for s in ("selection", "test", "reference")
    ]
    assert not any(torch.equal(a, b) for a, b in ((streams[0], streams[1]), (streams[1], streams[2])))


def test_table_has_a_row_per_class_and_head(random_checkpoint):
    result = score(random_checkpoint, ["linear", "cubic"], n_prompts=8, points=slice(0, 4))
    table = result.table
    assert len(table) == 2 * 24
    assert set(table["points"]) == {"0-3"}
    for row in (table.iloc[0], table.iloc[-1]):
        assert row["value"] == result.values[row["function_class"]][row["layer"], row["head"]]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kind": "induction"}, r"'induction' \(valid: retrospective, paper, previous_token"),
        ({"by": "norm"}, r"unknown --weighting 'norm' \(valid: pattern, value, derivative\)"),
        ({"shift": "beyond:2"}, r"changes only the query.* \(valid: none, scale_x, scale_w, noise, half_subspace\)"),
        ({"shift": "random_quadrants"}, "changes only the query"),
        ({"inputs": "normal"}, "unknown input distribution 'normal'"),
        ({"points": slice(4, 17)}, "points 4-16: these prompts have pairs 0-15"),
        ({"points": slice(3, 3)}, "these prompts have pairs 0-15"),
        ({"points": slice(0, 4), "kind": "paper"}, "the score paper reads the first 6 pairs: it takes no points"),
        ({"points": slice(0, 1), "kind": "lookup"}, "points 0: the score lookup has no query there"),
    ],
)
def test_what_cannot_be_scored_is_refused(settings, message, random_checkpoint):
    with pytest.raises(UserError, match=message):
        score(random_checkpoint, ["linear"], **settings)


def test_classes_that_the_instruction_cannot_tell_are_refused(told_checkpoint):
    with pytest.raises(UserError, match="no instruction for sparse_linear"):
        check_scores(told_checkpoint.config, ["sparse_linear"], measures_of(["all"]))


def pair_before(tokens):
    """mean attention from x_q to the pair just before it

    More about it.
    """
    return (tokens.is_x[:, None] & (tokens.pair >= 0) & (tokens.pair == tokens.pair[:, None] - 1))[None]


def test_a_score_of_ones_own_needs_no_entry_anywhere(random_checkpoint):
    """Attention to the pair before and to all earlier pairs is one thing where there is one earlier pair."""
    found = score(random_checkpoint, ["linear"], kind=ScoreKind("pair_before", pair_before), n_prompts=8)
    assert found.values["linear"].max() < 1
    own = [Measure(ScoreKind("pair_before", pair_before), slice(1, 2))]
    earlier = measures_of(["x_to_earlier_x", "x_to_earlier_y"], [slice(1, 2)])
    of_own, *of_earlier = score_all(random_checkpoint, ["linear"], measures=own + earlier, n_prompts=8)
    np.testing.assert_allclose(of_own.values["linear"], sum(one.values["linear"] for one in of_earlier), rtol=1e-5)
    (table,) = found.tables()
    assert "pair_before score (mean attention from x_q to the pair just before it)" in table.title


def test_an_entry_in_the_registry_is_among_all_scores(random_checkpoint, monkeypatch):
    monkeypatch.setitem(SCORES, "pair_before", ScoreKind("pair_before", pair_before))
    names = [one.kind.name for one in score_all(random_checkpoint, ["linear"], n_prompts=4, intervals=False)]
    assert names == [*SCORE_NAMES[:-1], "pair_before"]
    assert score(random_checkpoint, ["linear"], kind="pair_before", n_prompts=4).kind.name == "pair_before"


def test_names_definitions_and_registries_agree():
    assert [*SCORES, *MEASURED] == [*SCORE_NAMES]
    assert [*WEIGHTINGS] == [*WEIGHTING_NAMES]
    assert weighting("value") is WEIGHTINGS["value"]
