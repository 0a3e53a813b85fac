# Everything a person types. `make help` lists the targets; each says what it does before it does it.
PYTHON ?= python3
VENV := .venv
STAMP := $(VENV)/.installed
PY := $(VENV)/bin/python
NATIVE := $(shell find native -type f 2>/dev/null)
CLANG_FORMAT := $(VENV)/bin/clang-format
CXX_FILES := $(filter %.cpp %.h,$(NATIVE))
BENCH_OUT ?= build/benchmarks
# One thread a worker: the tests are many and small, but for some fits, which idle workers take over.
PYTEST := OMP_NUM_THREADS=1 $(PY) -m pytest -n auto --maxprocesses 8 --dist worksteal

.DEFAULT_GOAL := help
.PHONY: help env weights fit test check slow faults fuzz lint format bench evidence docs wheel clean

help:  ## list the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /  make \1\t/' | expand -t 16

env: $(STAMP)  ## make .venv with the package, its native kernels and all tools, at the pinned versions

fit: $(STAMP)  ## fit the embedded character, evaluate and export it (experiments/quickstart.yaml)
	@echo "make fit: fits experiments/quickstart.yaml; results go to runs/"
	@$(PY) -m kg4d.fit --config experiments/quickstart.yaml --overwrite

test: weights  ## run the tests, all but those of `make slow` and `make fuzz`
	@echo "make test: runs the tests"
	@$(PYTEST) -m "not slow and not fuzz"

weights: $(STAMP)  ## fetch the weights of the networks (LPIPS, I3D, U2-Net-p, BlazePose) into the cache
	@$(PY) -m kg4d.metrics.weights pull || echo "make weights: could not fetch them; metrics that need them are skipped, mattes are guessed by GrabCut"

check: lint  ## what a contribution must pass: lint, types and the quick tests
	@echo "make check: runs the tests that need neither a GPU nor much time"
	@$(PYTEST) -m "not fuzz and not gpu and not slow"

slow: weights  ## run the tests that take more than a few seconds each
	@echo "make slow: runs the slow tests"
	@$(PYTEST) -m "slow and not fuzz and not gpu"

faults: $(STAMP)  ## kill fits, prepares and exports at random moments, fill their disks; prints tried, survived, lost
	@echo "make faults: kills fits, prepares and exports at random moments and fills their disks; takes an hour"
	@OMP_NUM_THREADS=1 $(PY) -m tests.faults.run 50

fuzz: $(STAMP)  ## build the native kernels under sanitizers and feed them hostile input
	@echo "make fuzz: builds the native kernels under sanitizers and feeds them hostile input; takes minutes"
	@$(PY) -m pytest -m fuzz tests/kernels

lint: $(STAMP)  ## check format, lint and types
	@echo "make lint: checks format, lint and types"
	@$(PY) -m ruff format --check
	@$(PY) -m ruff check
	@$(CLANG_FORMAT) --dry-run -Werror $(CXX_FILES)
	@$(PY) -m mypy

format: $(STAMP)  ## format the code and mend what ruff can mend
	@echo "make format: formats the code and mends what ruff can mend"
	@$(PY) -m ruff format
	@$(PY) -m ruff check --fix
	@$(CLANG_FORMAT) -i $(CXX_FILES)

bench: $(STAMP)  ## run every benchmark; tables here, rows in build/benchmarks/*.json
	@echo "make bench: runs every benchmark; rows go to $(BENCH_OUT)/"
	@mkdir -p $(BENCH_OUT)
	@set -e; for file in benchmarks/[a-z]*.py; do \
	  echo "== $$file"; $(PY) $$file --json $(BENCH_OUT)/$$(basename $$file .py).json; done

evidence: weights  ## fit every preset and ablation on every scene; docs/evidence.md; resumable, 1-2 hours
	@echo "make evidence: runs the plan of evidence/plan.yaml side by side; runs go to build/evidence/"
	@$(PY) -m evidence.run && $(PY) -m evidence.report && $(PY) -m evidence.look

docs: $(STAMP)  ## build the documentation as a site, without network; broken links are errors
	@echo "make docs: writes docs/settings.md and builds the site into build/docs"
	@$(PY) -m kg4d.config.reference > docs/settings.md.part && mv docs/settings.md.part docs/settings.md
	@NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs build --strict --quiet && echo "site     build/docs/index.html"

wheel: $(STAMP)  ## build the sdist and a wheel for any Linux of this architecture into dist/, and try the wheel
	@echo "make wheel: builds an sdist and a wheel into dist/, and tries the wheel in a new environment; takes minutes"
	@rm -rf build/wheel dist && PATH="$(CURDIR)/$(VENV)/bin:$$PATH" $(PY) -m build --no-isolation --outdir build/wheel
	@PATH="$(CURDIR)/$(VENV)/bin:$$PATH" $(PY) -m auditwheel repair --wheel-dir dist build/wheel/*.whl
	@cp build/wheel/*.tar.gz dist/ && deploy/try_wheel.sh dist/*.whl $(PYTHON)

clean:  ## remove .venv and build products; runs/ stays
	@echo "make clean: removes .venv and build products"
	@rm -rf $(VENV) build dist kg4d/_native .mypy_cache .pytest_cache .ruff_cache .hypothesis

# torch goes first and alone: with it in place, no other requirement can pull another build of it.
# (On a machine with PyPI alone that is the CUDA build; PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu gives the small one.)
$(STAMP): pyproject.toml constraints.txt $(NATIVE)
	@echo "make env: makes $(VENV) with the package and its tools, at the versions of constraints.txt"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "make env: needs Python 3.11 or newer, try: make env PYTHON=python3.11")'
	@test -x $(PY) || $(PYTHON) -m venv $(VENV)
	@$(PY) -m pip install --quiet -c constraints.txt $$(grep '^torch==' constraints.txt)
	@$(PY) -m pip install --quiet -c constraints.txt cmake ninja \
	  $$($(PY) -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["build-system"]["requires"])')
	@PATH="$(CURDIR)/$(VENV)/bin:$$PATH" $(PY) -m pip install --quiet --no-build-isolation -c constraints.txt -e ".[cuda,dev,docs,flows,gltf,priors,spz,usd]"
	@$(PY) -m pip install --quiet -c constraints.txt $$($(PY) -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]["sweep"])') \
	  || echo "make env: no Ray or Optuna for this Python; kg4d.sweep then runs grids on this machine"
	@touch $@
