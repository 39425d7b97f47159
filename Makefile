# Two commands do everything on a fresh machine with Python 3.11, pip and make: `make emulate` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RUNS := $(VENV)/.runs
READY := $(VENV)/.ready
# files of tests in a process more than there are cores, for many wait for others, 4 at most: each has torch in memory;
# long ones, of e2e, first
BESIDE := -n $(shell expr $$(getconf _NPROCESSORS_ONLN) + 1) --maxprocesses 4 --dist loadfile --no-loadscope-reorder

.PHONY: emulate test test-slow protos clean

emulate: $(RUNS)
	$(BIN)/csiemu emulate $(ARGS)

test: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/pytest $(BESIDE) $(ARGS)

test-slow: $(READY)
	$(BIN)/pytest $(BESIDE) -m "slow or not slow" $(ARGS)

# torch first and pinned: on Linux the CPU build, where an index of it is at hand
$(RUNS): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q --no-compile -c constraints.txt torch
	$(BIN)/pip install -q --no-compile -c constraints.txt -e .
	$(BIN)/python -c "import shared.channels.compiled.loops, shared.quantizers.loops, shared.schemes.angle_loops"
	touch $@

# what tests need beside it
$(READY): $(RUNS)
	$(BIN)/pip install -q --no-compile -c constraints.txt -e ".[dev]"
	touch $@

protos: $(READY)
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/python -m grpc_tools.protoc -I. --python_out=. --grpc_python_out=. --mypy_out=quiet:. --mypy_grpc_out=quiet:. \
		protos/csi_feedback/v1/csi_feedback.proto

clean:
	rm -rf $(VENV) runs
