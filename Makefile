# make demo: the whole job on the embedded models.
# make check: lint, types, layers and the fast tests, in two minutes.   make test: the same with all tests, in ten.
# make docs: builds the documentation and serves it on localhost.
# Each sets up .venv by itself; PYTHON names the interpreter to start from (3.11 or newer, for the versions tested here).

PYTHON ?= python3
BIN := .venv/bin
EXTRAS := study,wandb,onnx,heic,lightning,sweep,docs,dev
# Byte code is kept even where the environment says otherwise: the tests start a hundred processes.
PYTEST := PYTHONDONTWRITEBYTECODE= $(BIN)/pytest -n 3 --dist loadfile --no-loadscope-reorder
PORT ?= 8000

.PHONY: demo lint check fast test docs schema lock clean

demo: .venv/ready
	$(BIN)/python train.py --config configs/demo.yaml

lint: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

check: .venv/ready
	$(MAKE) --no-print-directory -j 2 lint fast  # mypy runs on one core

fast: .venv/ready
	$(PYTEST) -m "not slow"

test: lint
	$(PYTEST)

docs: .venv/ready
	$(BIN)/python -m sphinx -q -W -n --keep-going -b html docs build/docs
	@echo "open http://localhost:$(PORT)/ (Ctrl-C ends; PORT=8001 if that port is taken)"
	@$(BIN)/python -m http.server --bind 127.0.0.1 --directory build/docs $(PORT)

# What editors complete configs with; run it after you change a key or its description.
schema: .venv/ready
	$(BIN)/finetune-monitor config --schema > configs/schema.json
	$(BIN)/finetune-monitor config --schema sweep > configs/schema_sweep.json

.venv/ready: pyproject.toml requirements.lock
	@$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11))" || \
		{ echo "make: $(PYTHON) is older than 3.11; name another one: make PYTHON=python3.12 ..."; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "installing into .venv (several minutes the first time) ..."
	$(BIN)/pip install --disable-pip-version-check -q -e ".[$(EXTRAS)]" -c requirements.lock
	touch $@

# Newest versions that pyproject.toml allows, written down; run `make test` before you commit the result.
lock:
	rm -rf .venv-lock
	$(PYTHON) -m venv .venv-lock
	.venv-lock/bin/pip install -q -e ".[$(EXTRAS)]"
	.venv-lock/bin/pip freeze --exclude-editable > requirements.lock
	rm -rf .venv-lock

clean:
	rm -rf .venv runs build/docs
