"""With transformer-lens 4, in an environment of its own: the weights load there, `interp.hooked` gives a twin, and
`interp.attach` opens any bridge."""

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

ATTACHED_SCRIPT = """
import json, torch
import numpy as np
import torch.nn.functional as F
from interp import ablate, attach, score
from interp.model.heads import Head
from transformer_lens.model_bridge import TransformerBridge

config = {"n_layers": 3, "n_heads": 4, "d_model": 32, "d_head": 8, "d_mlp": 64, "n_ctx": 12}
config |= {"d_vocab": 40, "d_vocab_out": 40, "act_fn": "gelu_new", "normalization_type": "LN", "eps": 1e-5}
bridge = TransformerBridge.boot_native(config).eval()
generator = torch.Generator().manual_seed(0)
for parameter in bridge.parameters():
    parameter.data.normal_(0, 0.3, generator=generator)
half = torch.randint(0, 40, (24, 6), generator=generator)
ids = torch.cat((half, half), 1)


def loss(logits, ids):
    return F.cross_entropy(logits[:, :-1].transpose(1, 2), ids[:, 1:], reduction="none")[:, 6:].mean(1)


def without(values):
    def edit(head):
        def hook(z, hook):
            z = z.clone()
            z[:, :, head.number] = values(cache[f"blocks.{head.layer}.attn.hook_z"][:, :, head.number])
            return z

        return f"blocks.{head.layer}.attn.hook_z", hook

    return loss(bridge.run_with_hooks(ids, fwd_hooks=[edit(Head(0, 1)), edit(Head(2, 3))]), ids).double().numpy()


with torch.no_grad():
    _, cache = bridge.run_with_cache(ids)
    intact = loss(bridge(ids), ids).double().numpy()
    model = attach(bridge, ids, loss, reference=ids)
    partners = model.task.partners()
    replacements = {"zero": lambda z: 0.0, "mean": lambda z: z.mean(0), "resample": lambda z: z[partners]}
    oracle = {mode: without(values) for mode, values in replacements.items()}
result = ablate(model, "0.1,2.3", modes=list(replacements), n_controls=3)
(errors,) = result.errors.values()
ours = {mode: errors.ablated[mode][Head(0, 1), Head(2, 3)].total[:, 0] for mode in oracle}
kept = torch.stack([cache[f"blocks.{layer}.attn.hook_pattern"] for layer in range(3)])
previous = kept.diagonal(-1, -2, -1).mean((1, 3)).numpy()
print(json.dumps({
    "distances": {mode: float(np.abs(ours[mode] / oracle[mode] - 1).max()) for mode in oracle},
    "effects": {mode: float(np.abs(oracle[mode] / intact - 1).max()) for mode in oracle},
    "scores": float(np.abs(score(model, kind="previous_token").values["all examples"] - previous).max()),
    "gives_layers_back": bool(model.network.leaf_axes),
}))
"""


IMPORTED_SCRIPT = """
import json, sys, torch
from pathlib import Path
from interp import hooked, import_checkpoint, load
from training.importing.hooked_layout import configuration

out, ours = Path(sys.argv[1]), load("zoo:mixed-0")
bridge = hooked(ours)
settings = ["data.classes=linear,quadratic,cubic", "data.n_points=16", "data.weights=unit"]
torch.save({"state_dict": bridge.state_dict(), "config": configuration(ours.config.model, 4)}, out / "bridge.pt")
runs = {
    "object": import_checkpoint(bridge, out / "object", settings=settings),
    "file": import_checkpoint(out / "bridge.pt", out / "file", format="hooked", settings=settings),
}
weights = ours.model.state_dict()
print(json.dumps({
    "type": type(bridge).__name__,
    "equal": {
        name: all(torch.equal(tensor, weights[key]) for key, tensor in run.model.state_dict().items())
        for name, run in runs.items()
    },
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


@pytest.mark.slow
def test_removals_from_an_attached_bridge_equal_its_own_hooks(python, tmp_path):
    done = subprocess.run([python, "-c", ATTACHED_SCRIPT], cwd=tmp_path, check=True, capture_output=True, text=True)
    document = json.loads(done.stdout)
    assert document["gives_layers_back"]
    assert document["scores"] <= 1e-6
    for mode, distance in document["distances"].items():
        assert distance <= 1e-6 < 1e-3 < document["effects"][mode], mode


@pytest.mark.slow
def test_a_bridge_is_imported_from_memory_and_from_its_file(python, tmp_path):
    done = subprocess.run([python, "-c", IMPORTED_SCRIPT, tmp_path], check=True, capture_output=True, text=True)
    assert json.loads(done.stdout) == {"type": "TransformerBridge", "equal": {"object": True, "file": True}}
