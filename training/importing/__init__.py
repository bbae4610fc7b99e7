"""Models of other programs as runs of this one, and the way back.

source_files   reads their files: YAML, JSON, and pickles with `weights_only=True`
settings       translates their configurations, and collects every reason against an import
gpt2_layout    the parameters and the forward pass of the GPT-2s of Garg et al. 2022 and of those who build on them
garg, bhasin, looped, in_context
               what the configurations of these programs say
hooked         the parameters, the forward pass and the configuration of a HookedTransformer
run, export    writes a run directory; writes theirs
"""
