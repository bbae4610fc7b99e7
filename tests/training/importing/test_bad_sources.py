"""What is no source, or a damaged one: one line, nothing written, nothing executed."""

import os
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from foreign_sources import Garg, garg_config, save_garg

from interp import import_checkpoint
from training.common.errors import UserError

GargRun = Callable[..., Path]


def refusal(source: Path, tmp_path: Path, **options: object) -> str:
    """The one line with which an import ends that leaves nothing behind."""
    before = sorted(tmp_path.iterdir())
    with pytest.raises(UserError) as refused:
        import_checkpoint(source, tmp_path / "run", **options)  # type: ignore[arg-type]
    assert sorted(tmp_path.iterdir()) == before
    assert "\n" not in str(refused.value)
    return str(refused.value)


def test_what_is_missing(garg_run: GargRun, tmp_path: Path):
    assert "there is no file or directory" in refusal(tmp_path / "nowhere", tmp_path)
    source = garg_run()
    (source / "state.pt").unlink()
    assert "holds no weights: neither state.pt nor model_STEP.pt" in refusal(source, tmp_path)
    assert "there is no configuration" in refusal(source, tmp_path, config=tmp_path / "no.yaml")


CONFIGS = {
    "[1, 2]": "is not a mapping of settings but list",
    "": "is not a mapping of settings but NoneType",
    "a: [": "cannot be read as YAML",
    "a: !!python/object/apply:os.system ['touch executed']": "asks for more than plain values",
    "a: " + "[" * 5000: "cannot be read as YAML",
    "name: nothing": "its configuration is of no known format",
    "training: 3\nmodel: {}\nfunction_class: {}": "training is 3: a table is needed",
}


@pytest.mark.parametrize("text", CONFIGS, ids=lambda text: text[:12])
def test_configurations_that_are_none(garg_run: GargRun, tmp_path: Path, text: str):
    source = garg_run()
    (source / "config.yaml").write_text(text)
    assert CONFIGS[text] in refusal(source, tmp_path)
    assert not Path("executed").exists()


def test_a_value_that_unfolds_without_end_is_named_by_its_kind(garg_run: GargRun, tmp_path: Path):
    layers = "\n".join(f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 9)}]" for n in range(1, 12))
    source = garg_run()
    text = f"l0: &l0 [x]\n{layers}\n" + yaml.dump(garg_config()).replace("task: linear_regression", "task: *l11")
    (source / "config.yaml").write_text(text)
    assert "training.task is a list: a word is needed" in refusal(source, tmp_path)


class Executed:
    def __reduce__(self):
        return os.system, ("touch executed",)


@pytest.mark.parametrize("save", [torch.save, lambda content, path: path.write_bytes(pickle.dumps(content))])
def test_a_pickle_with_code_is_not_executed(garg_run: GargRun, tmp_path: Path, save, monkeypatch):
    monkeypatch.chdir(tmp_path)
    source = garg_run()
    save({"model_state_dict": {"_read_in.weight": Executed()}, "train_step": 1}, source / "state.pt")
    message = refusal(source, tmp_path)
    assert "state.pt is not read: it is" in message
    assert not (tmp_path / "executed").exists()


def test_a_file_that_was_cut_short(garg_run: GargRun, tmp_path: Path):
    source = garg_run()
    content = (source / "state.pt").read_bytes()
    (source / "state.pt").write_bytes(content[: len(content) // 2])
    assert "state.pt" in refusal(source, tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1, 2], "holds no weights but list"),
        ({"model_state_dict": {}, "train_step": 1}, "holds no weights: a mapping from names to tensors"),
        ({"model_state_dict": {"a": 1.0}, "train_step": 1}, "holds no weights: a mapping from names to tensors"),
        ({"a.weight": torch.zeros(1)}, "does not say of which step it is"),
        ({"state_dict": {"a.weight": torch.zeros(1)}, "train_step": 1}, "lacks _backbone.h.0.attn.c_attn.bias"),
    ],
)
def test_files_without_the_weights(garg_run: GargRun, tmp_path: Path, content: object, message: str):
    source = garg_run()
    torch.save(content, source / "state.pt")
    assert message in refusal(source, tmp_path)


def test_parameters_of_another_network_are_named(garg: Garg, tmp_path: Path):
    source = save_garg(tmp_path / "theirs", garg, garg_config())
    state = {**garg.state_dict(), "task_prefix_embeddings.weight": torch.zeros(2, 16)}
    torch.save({"model_state_dict": state, "train_step": 10_000}, source / "state.pt")
    assert "has parameters of another network: task_prefix_embeddings.weight" in refusal(source, tmp_path)


def test_values_that_are_not_finite(garg: Garg, tmp_path: Path):
    garg._read_out.bias.fill_(float("nan"))
    assert "_read_out.bias holds values that are not finite" in refusal(
        save_garg(tmp_path / "theirs", garg, garg_config()), tmp_path
    )


def test_predictions_that_overflow(garg: Garg, tmp_path: Path):
    garg._read_out.weight.fill_(3e38)
    assert "the predictions or their squares are not" in refusal(
        save_garg(tmp_path / "theirs", garg, garg_config()), tmp_path
    )


def test_sizes_are_checked_before_memory_is_taken(garg_run: GargRun, tmp_path: Path):
    source = garg_run()
    with (source / "state.pt").open("r+b") as file:
        file.truncate(3 * 2**30)
    message = refusal(source, tmp_path)
    assert f"holds {3 * 2**30} bytes; at most" in message


def test_a_run_is_never_overwritten_without_being_asked_to(garg_run: GargRun, tmp_path: Path):
    source = garg_run()
    first = import_checkpoint(source, tmp_path / "mine")
    before = (tmp_path / "mine" / "model.safetensors").read_bytes()
    with pytest.raises(UserError, match="already holds a run: overwrite it with --force"):
        import_checkpoint(source, tmp_path / "mine", seed_label="b")
    assert (tmp_path / "mine" / "model.safetensors").read_bytes() == before
    assert import_checkpoint(source, tmp_path / "mine", seed_label="b", force=True).config != first.config
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match=r"holds other files beside the run \(notes.txt\)"):
        import_checkpoint(source, tmp_path / "mine", force=True)
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "a.txt").write_text("a")
    with pytest.raises(UserError, match="holds files that are not a run"):
        import_checkpoint(source, tmp_path / "files", force=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["files", "mine", "theirs"]


def test_formats_that_are_none_or_another(garg_run: GargRun, tmp_path: Path):
    source = garg_run()
    assert "unknown --format 'nano' (valid: garg, looped, hooked)" in refusal(source, tmp_path, format="nano")
    assert "--format looped: the configuration is of the format garg" in refusal(source, tmp_path, format="looped")
