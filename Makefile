# make demo: a complete run on the embedded models.
# make check: lint, types, layers, and the fast tests, in two minutes.   make test: the same with all tests, in ten.
# Each sets up .venv itself; PYTHON selects the interpreter (3.11 or newer, for the versions tested here).

PYTHON ?= python3
BIN := .venv/bin
PYTEST := OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder

.PHONY: demo lint check test lock clean

demo: .venv/ready
	$(BIN)/accelerate launch --quiet --cpu --num_processes 1 --num_machines 1 --mixed_precision no --dynamo_backend no \
		train.py --config configs/demo.yaml

lint: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

check: lint
	$(PYTEST) -m "not slow"

test: lint
	$(PYTEST)

.venv/ready: pyproject.toml requirements.lock
	@$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11))" || \
		{ echo "make: $(PYTHON) is older than 3.11; choose another one: make PYTHON=python3.12 ..."; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "installing into .venv (several minutes the first time) ..."
	$(BIN)/pip install --disable-pip-version-check -q -e ".[study,wandb,onnx,sweep,dev]" -c requirements.lock
	touch $@

# Pin the newest versions that pyproject.toml allows; run `make test` before you commit the result.
lock:
	rm -rf .venv-lock
	$(PYTHON) -m venv .venv-lock
	.venv-lock/bin/pip install -q -e ".[study,wandb,onnx,sweep,dev]"
	.venv-lock/bin/pip freeze --exclude-editable > requirements.lock
	rm -rf .venv-lock

clean:
	rm -rf .venv runs
