"""With transformer-lens 4, in an environment of its own: the weights load there, and `interp.hooked` gives a twin."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from interp.model.engine import read_sites
from training.checkpoints.checkpoint import load, zoo_path
from training.evaluation.evaluate import evaluation_prompts

ROOT = Path(__file__).parents[3]
CONSTRAINTS, NOTEBOOK = ROOT / "constraints.txt", ROOT / "notebooks" / "08_with_transformer_lens.py"
SITES = ["blocks.0.attn.hook_pattern", "blocks.1.attn.hook_z", "blocks.2.hook_resid_mid"]

SCRIPT = """
import json, sys
from pathlib import Path
from safetensors.torch import load_file, save_file
from transformer_lens.model_bridge import TransformerBridge
from transformer_lens.utilities.tl_checkpoint_conversion import convert_tl_checkpoint

checkpoint, prompts, out, *sites = sys.argv[1:]
sizes = json.loads(Path(checkpoint, "config.json").read_text())["run"]["model"]
config = {key: sizes[key] for key in ("n_layers", "n_heads", "d_model", "n_ctx")}
config |= {"d_head": sizes["d_model"] // sizes["n_heads"], "d_mlp": 4 * sizes["d_model"]}
config |= {"d_vocab": sizes["n_dims"], "d_vocab_out": 1}
config |= {"act_fn": "gelu_new", "normalization_type": "LN", "eps": 1e-5}
model = TransformerBridge.boot_native(config)
weights = load_file(Path(checkpoint, "model.safetensors"))
model.load_state_dict(convert_tl_checkpoint(weights, model.cfg), strict=True)
output, cache = model.run_with_cache(load_file(prompts)["tokens"] @ weights["embed.W_E"])
kept = {"output": output[..., 0]} | {site: cache[site] for site in sites}
save_file({name: tensor.detach().contiguous() for name, tensor in kept.items()}, out)
"""


HOOKED_SCRIPT = """
import json, sys, torch
from interp import hooked, load
from interp.model.engine import read_sites
from training.model.sites import site_names

checkpoint = load("zoo:mixed-0")
model, twin = checkpoint.model, hooked(checkpoint)
prompt = torch.randn(5, 32, 4, generator=torch.Generator().manual_seed(0))
_, cache = twin.run_with_cache(prompt)
sites = [site for site in site_names(3) if not site.endswith("hook_result")]
values = read_sites(model, prompt, sites)


def distance(ours, theirs):
    assert ours.shape == theirs.shape and torch.equal(ours.isfinite(), theirs.isfinite())
    finite = ours.isfinite()
    return ((ours - theirs)[finite].abs().max() / ours[finite].abs().max()).item()


def edit(activation, hook=None):
    half = activation / 2
    return torch.where(half.isfinite(), half.roll(1, 0) if len(half) == len(prompt) else half, activation)


intact, edits = model(prompt), {}
for site in sites:
    ours, theirs = model(prompt, {site: edit}), twin.run_with_hooks(prompt, fwd_hooks=[(site, edit)])[..., 0]
    edits[site] = {"distance": distance(ours, theirs), "effect": distance(intact, ours)}
later = twin(cache["blocks.1.hook_resid_pre"], start_at_layer=1)[..., 0]
print(json.dumps({
    "type": type(twin).__name__,
    "activations": {site: distance(values[site], cache[site]) for site in sites},
    "edits": edits,
    "output": distance(intact, twin(prompt)[..., 0]),
    "from_layer_1": distance(intact, later),
}))
"""


@pytest.fixture(scope="module")
def python(tmp_path_factory):
    """The interpreter of an environment with this package and transformer-lens 4."""
    directory = tmp_path_factory.mktemp("venv")
    subprocess.run([sys.executable, "-m", "venv", directory], check=True)
    (torch_pin,) = [line for line in CONSTRAINTS.read_text().splitlines() if line.startswith("torch==")]
    install = ["-m", "pip", "install", "--quiet", torch_pin, "transformer-lens>=4.3", ROOT]
    subprocess.run([directory / "bin" / "python", *install], check=True, stderr=subprocess.DEVNULL)
    return directory / "bin" / "python"


def test_the_notebook_shows_what_is_run_here():
    code = "\n".join(f"# {line}".rstrip() for line in SCRIPT.strip().splitlines())
    assert f"# ```python\n{code}\n# ```\n" in NOTEBOOK.read_text()


@pytest.mark.slow
def test_a_checkpoint_gives_the_same_numbers_in_transformer_lens_4(python, tmp_path):
    checkpoint = load("zoo:mixed-0")
    tokens = evaluation_prompts(checkpoint.config, "cubic", n_prompts=8, seed=0).tokens
    save_file({"tokens": tokens}, tmp_path / "prompts.safetensors")
    paths = [zoo_path("mixed-0"), tmp_path / "prompts.safetensors", tmp_path / "out.safetensors"]
    subprocess.run([python, "-c", SCRIPT, *map(str, paths), *SITES], check=True)

    theirs = load_file(tmp_path / "out.safetensors")
    ours = {"output": checkpoint.model(tokens)} | read_sites(checkpoint.model, tokens, SITES)
    for name, tensor in ours.items():
        assert (tensor - theirs[name]).abs().max() <= 1e-5 * tensor.abs().max(), name
    assert torch.isfinite(theirs["output"]).all()


@pytest.mark.slow
def test_hooked_is_a_bridge_with_the_same_activations_and_effects_of_edits(python, tmp_path):
    done = subprocess.run([python, "-c", HOOKED_SCRIPT], cwd=tmp_path, check=True, capture_output=True, text=True)
    document = json.loads(done.stdout)
    assert document["type"] == "TransformerBridge"
    assert max(document["output"], document["from_layer_1"], *document["activations"].values()) <= 1e-5
    for site, edit in document["edits"].items():
        assert edit["distance"] <= 1e-5 < 1e-3 < edit["effect"], site
