import dataclasses
import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from training.common.errors import UserError
from training.config.config import RunConfig, Seeds
from training.config.parse import (
    from_dict,
    from_preset,
    merged,
    preset_names,
    read_toml,
    recipe_names,
    settable_keys,
    to_dict,
)
from training.config.setting_table import list_settings, sections, valid_words
from training.loop.optim import Optimizer, learning_rate
from training.model.transformer import Transformer


@pytest.mark.parametrize("preset", preset_names())
def test_a_config_survives_json(preset):
    config = from_preset(preset, "mixed", 3)
    assert from_dict(RunConfig, json.loads(json.dumps(to_dict(config)))) == config


def test_the_paper_preset_is_the_authors_recipe():
    config = from_preset("paper", "mixed", 0)
    model, recipe = config.model, config.recipe
    assert (model.n_layers, model.n_heads, model.d_model, model.n_dims, model.n_ctx) == (12, 8, 256, 20, 202)
    assert (config.data.n_points, config.data.weights) == (100, "standard")
    assert (recipe.steps, recipe.batch_size, recipe.optimizer, recipe.lr) == (500_001, 64, "adam", 1e-4)
    assert (recipe.schedule, recipe.warmup_steps, recipe.weight_decay, recipe.grad_clip) == ("constant", 0, 0.0, 0.0)
    assert (recipe.loss, model.init_std, model.read_init) == ("raw", 0.02, "linear")


def test_a_recipe_follows_the_size_of_the_preset():
    sizes = {preset: read_toml("presets", preset).get("at_this_size", {}) for preset in preset_names()}
    assert sizes["small"]
    for preset, at_this_size in sizes.items():
        assert {*at_this_size} <= {*recipe_names()}
        for recipe in recipe_names():
            made = to_dict(from_preset(preset, "mixed", 0, recipe=recipe))
            for section, said in merged(read_toml("recipes", recipe), at_this_size.get(recipe, {})).items():
                assert {key: made[section][key] for key in said} == said


def test_settings_replace_one_value_each():
    config = from_preset("tiny", "mixed", 0, ["recipe.lr=1e-4", "data.weights=standard", "data.classes=linear,cubic"])
    before = from_preset("tiny", "mixed", 0)
    assert config.recipe == dataclasses.replace(before.recipe, lr=1e-4)
    assert (config.data.weights, config.data.classes) == ("standard", ("linear", "cubic"))
    assert config.model == before.model


@pytest.mark.parametrize("text", ["20,40", "[20, 40]"])
def test_a_list_of_numbers_is_text_with_commas_too(text):
    config = from_preset("tiny", "sequential", 0, ["recipe.steps=60", f"schedule.edges={text}"])
    assert config.schedule.edges == (20, 40)
    with pytest.raises(UserError, match=r"^schedule\.edges='x': a whole number is needed$"):
        from_preset("tiny", "sequential", 0, ["recipe.steps=60", f"schedule.edges={text.strip('[]')},x"])


def test_a_stream_can_be_shared_on_purpose():
    donor = from_preset("tiny", "mixed", 0).seeds
    shared = from_preset("tiny", "sequential", 0, [f"seeds.data={donor.data}"]).seeds
    assert shared.data == donor.data
    assert shared.init != donor.init


def test_every_seed_and_curriculum_has_streams_of_its_own():
    names = ("mixed", "sequential", "random", "single:linear")
    seeds = [Seeds.derive(seed, name) for seed in range(20) for name in names]
    assert len({value for triple in seeds for value in dataclasses.astuple(triple)}) == 3 * len(seeds)


def refusal(setting: str) -> str | None:
    try:
        from_preset("tiny", "mixed", 0, [setting])
    except UserError as error:
        return str(error)
    return None


@given(st.text(max_size=30))
def test_any_setting_is_accepted_or_refused_in_one_line(text):
    message = refusal(text)
    assert message is None or len(message.splitlines()) == 1


@given(st.sampled_from(["recipe.lr", "recipe.steps", "model.d_model", "data.weights", "data.classes"]), st.text())
def test_any_value_is_accepted_or_its_refusal_names_the_key(key, value):
    message = refusal(f"{key}={value}")
    assert message is None or any(name in message for name in (key, "function class", "--set"))


def test_a_value_cannot_smuggle_in_a_second_key():
    assert refusal("recipe.lr=1e-3\nsteps=5") == "recipe.lr='1e-3\\nsteps=5': a number is needed"


@pytest.mark.parametrize(("optimizer", "decays"), [("adam", False), ("adamw", True)])
def test_the_optimizer_is_the_one_named(optimizer, decays):
    config = from_preset("tiny", "mixed", 0, [f"recipe.optimizer={optimizer}", "recipe.weight_decay=0.5"])
    model = Transformer(config.model)
    made = Optimizer(model, config.recipe)
    before = model.embed.W_E.detach().clone()
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    made.step(config.recipe.lr)
    shrunk = torch.allclose(model.embed.W_E, before * (1 - config.recipe.lr * 0.5), rtol=1e-6, atol=0)
    assert shrunk is decays


def test_the_rate_rises_holds_or_falls_as_asked():
    cosine = from_preset("tiny", "mixed", 0).recipe
    rates = [learning_rate(cosine, step) for step in range(cosine.steps)]
    assert max(rates) == rates[199] == cosine.lr
    assert rates[:200] == sorted(rates[:200])
    assert rates[199:] == sorted(rates[199:], reverse=True)
    assert rates[-1] < 1e-5 * cosine.lr
    assert {learning_rate(from_preset("paper", "mixed", 0).recipe, step) for step in (0, 7, 500_000)} == {1e-4}


@pytest.mark.parametrize(("multiplies_bf16", "chosen"), [(True, "bf16"), (False, "float32")])
def test_the_automatic_precision_is_recorded_as_what_it_chose(multiplies_bf16, chosen, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: multiplies_bf16)
    config = from_preset("tiny", "mixed", 0, ["recipe.precision=auto"])
    assert config.recipe.precision == chosen
    assert to_dict(config)["recipe"].get("precision", "float32") == chosen
    assert from_preset("tiny", "mixed", 0).recipe.precision == "float32"


def test_every_setting_is_listed_with_its_meaning_and_its_values():
    settings = {setting.key: setting for setting in list_settings()}
    assert {*settings} == {*settable_keys()}
    assert all(setting.meaning and not setting.meaning.startswith("of ") for setting in settings.values())
    assert settings["recipe.steps"].values == "500001 / 20000 / 3000"
    assert settings["model.act"].meaning.endswith("(gelu_new, gelu, relu, silu)")
    for key, setting in settings.items():
        section, name = key.split(".")
        kind = dict(sections())[section]
        (field,) = (field for field in dataclasses.fields(kind) if field.name == name)
        assert all(word in setting.meaning for word in valid_words(field.type)), key
