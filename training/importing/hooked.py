"""HookedTransformers of transformer-lens 3.x and native TransformerBridges of 4.x whose network is this program's.

Their configuration names the architecture (`act_fn`, `normalization_type`, ...), and a state dict alone does not:
without a configuration nothing is imported.
"""

from training.config.config import RunConfig
from training.importing.hooked_layout import ACTIVATIONS, NORMS, Weights, has_equal_positions
from training.importing.settings import OFF, Requirement, Settings
from training.importing.translation import Values, chosen_classes, single_or_random
from training.model.transformer import ROTARY_BASE

UNFOLDED = "norms with their weights unfolded (LN, RMS), or none (null), can be opened"
REQUIRED = (
    Requirement("normalization_type", tuple(NORMS), UNFOLDED),
    Requirement("layer_norm_folding", (False, None), UNFOLDED),
    Requirement("use_attn_scale", (True,), "attention scaled by sqrt(d_head) can be opened"),
    Requirement("attention_dir", ("causal",), "causal attention can be opened"),
    Requirement(
        "positional_embedding_type",
        ("standard", "rotary"),
        "learned positions (standard) and rotary ones can be opened",
    ),
    Requirement("d_vocab_out", (1,), "a single real output can be read"),
    Requirement("attn_scores_soft_cap", (-1.0, 0), "scores without a cap can be opened"),
    Requirement("output_logits_soft_cap", (-1.0, 0), "outputs without a cap can be opened"),
    Requirement("num_experts", (None,), "models without experts can be opened"),
    Requirement("window_size", (None,), "attention to all earlier tokens can be opened"),
    *(
        Requirement(key, (False, None), "models without it can be opened")
        for key in (
            *("gated_mlp", "parallel_attn_mlp", "use_local_attn", "scale_attn_by_inverse_layer_idx"),
            *("final_rms", "uses_rms_norm", "post_embedding_ln", "use_qk_norm", "use_logn_attn", "use_attention_sinks"),
            *("use_normalization_before_and_after", "use_dynamic_ntk_rope", "use_yarn_rope", "use_NTK_by_parts_rope"),
            *("tie_word_embeddings", "load_in_4bit"),
        )
    ),
)
"""Settings that every network of this program's has, wherever they are named."""
WITH_MLPS = (Requirement("act_fn", tuple(ACTIVATIONS), f"{', '.join(ACTIVATIONS)} can be opened"),)
WITH_ROTARY_POSITIONS = (
    Requirement("rotary_base", (None, ROTARY_BASE), f"{ROTARY_BASE:g} can be opened"),
    Requirement("rotary_base_local", (None,), "one base for all layers can be opened"),
    Requirement("rotary_scaling_factor", (None, 1.0), "angles without a factor can be opened"),
    Requirement("rotary_adjacent_pairs", (False, None), "pairs of coordinates half a head apart can be opened"),
)
KNOWN = (
    *("n_layers", "n_heads", "d_model", "d_head", "d_mlp", "n_ctx", "d_vocab", "n_key_value_heads", "attn_scale"),
    *("act_fn", "eps", "attn_only"),
)
"""Settings that are read."""
WITHOUT_EFFECT = (
    *(
        "model_name",
        "device",
        "n_devices",
        "dtype",
        "seed",
        "init_mode",
        "init_weights",
        "initializer_range",
        "n_params",
    ),
    *("use_attn_result", "use_split_qkv_input", "use_hook_mlp_in", "use_attn_in", "use_hook_tokens"),
    *("ungroup_grouped_query_attention", "default_prepend_bos", "tokenizer_name", "tokenizer_prepends_bos"),
    *("original_architecture", "from_checkpoint", "checkpoint_index", "checkpoint_label_type", "checkpoint_value"),
    *("trust_remote_code", "attn_types", "experts_per_token", "decoder_start_token_id", "train_seq_length"),
    *("architecture", "tokenizer", "tokenizer_appends_eos", "default_padding_side", "attn_implementation"),
)
"""Settings that change nothing in a network that meets the requirements."""
OF_POSITIONS = ("rotary_", "yarn_", "NTK_", "relative_attention_")
"""How settings begin that only some kinds of positions read."""


def translate(settings: Settings, weights: Weights, step: int, label: str) -> RunConfig | None:
    """The run; None where there are reasons against it."""
    settings.require(REQUIRED)
    architecture = check_architecture(settings, weights)
    for key, value in settings.values.items():
        known = key in (*KNOWN, *WITHOUT_EFFECT) or key.startswith(OF_POSITIONS) or is_required(key)
        if not known and value not in OFF:
            settings.refuse(f"{key} is set: what it changes is not known here")
    sizes = check_sizes(settings)
    if not settings.is_set("data.classes"):
        settings.refuse(
            "a HookedTransformer does not say what it learned: name its function classes (--set data.classes=linear)"
        )
    if not settings.is_set("data.n_points"):
        settings.refuse(
            "a HookedTransformer does not say how long its prompts were: name their pairs "
            f"(--set data.n_points=N, at most {max(1, sizes['n_ctx'] // 2)})"
        )
    classes = chosen_classes(settings, ("linear",))
    if any(name.startswith("linear_classification") for name in classes):
        settings.notes.append("its outputs are read as predictions of y = ±1, judged by squared error; logits are none")
    values: Values = {
        "curriculum": single_or_random(classes),
        "seed_label": label,
        "model": sizes | architecture,
        "recipe": {"steps": max(1, step)},
        "data": {},
    }
    config = settings.run_config(values) if not settings.reasons else None
    return None if settings.reasons else config


def is_required(key: str) -> bool:
    return any(requirement.key == key for requirement in REQUIRED)


def check_architecture(settings: Settings, weights: Weights) -> Values:
    """The architecture in the table `model`, with a reason for everything in it that cannot be opened."""
    d_model = settings.whole("d_model")
    architecture: Values = {"eps": settings.number("eps", 1e-5)}
    norm = settings.get("normalization_type") if settings.has("normalization_type") else "LN"
    architecture["norm"] = NORMS.get(norm, "layer") if norm is None or isinstance(norm, str) else "layer"
    if settings.get("positional_embedding_type") == "rotary":
        architecture["positions"] = "rotary"
        settings.require(WITH_ROTARY_POSITIONS)
        d_head = d_model // settings.whole("n_heads")
        if settings.get("rotary_dim") not in (None, d_head):
            settings.refuse(f"rotary_dim is {settings.get('rotary_dim')}: only all {d_head} coordinates of a head")
    elif has_equal_positions(weights):
        architecture["positions"] = "none"
        settings.notes.append("every position has the same vector: the model is opened without positions")
    if settings.get("attn_only") is True:
        return architecture | {"d_mlp": 0}
    width = settings.whole("d_mlp", default=4 * d_model)
    settings.word("act_fn")  # transformer-lens would take relu
    settings.require(WITH_MLPS)
    architecture["act"] = next((act for act in ACTIVATIONS if act == settings.get("act_fn")), "gelu_new")
    return architecture | ({} if width == 4 * d_model else {"d_mlp": width})


def check_sizes(settings: Settings) -> Values:
    """The sizes in the table `model`, with a reason for every one that cannot be."""
    sizes = {ours: settings.whole(ours) for ours in ("n_layers", "n_heads", "d_model", "n_ctx")}
    sizes["n_dims"] = settings.whole("d_vocab")
    d_model, n_heads = sizes["d_model"], sizes["n_heads"]
    if settings.whole("d_head", default=max(1, d_model // n_heads)) * n_heads != d_model:
        settings.refuse(f"d_head is {settings.get('d_head')}: {n_heads} heads of it are not d_model {d_model}")
    if settings.get("n_key_value_heads") not in (None, n_heads):
        settings.refuse(f"n_key_value_heads is {settings.get('n_key_value_heads')}: only {n_heads}, one per head")
    scale = settings.number("attn_scale", -1.0)
    if scale not in (-1.0, 0.0) and abs(scale - (d_model / n_heads) ** 0.5) > 1e-6:
        settings.refuse(f"attn_scale is {scale:g}: only sqrt(d_head) can be opened")
    if any(kind != "global" for kind in settings.get("attn_types") or ()):
        settings.refuse("attn_types is not global throughout: only attention to all earlier tokens can be opened")
    return sizes
