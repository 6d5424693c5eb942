# Works on a machine that has only Python 3.11+ and make: everything else goes into VENV.
PYTHON ?= python3
VENV ?= .venv
OUT ?= demo-out
WEB ?= demo-web
PORT ?= 7860
FUZZ_SECONDS ?= 60

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --disable-pip-version-check --quiet --constraint constraints.txt
CODE := $(wildcard src tools bench tests fuzz examples)
TYPED := $(wildcard src tools bench)
# one worker a core takes file after file, the heaviest first (tests/heaviest_first.txt)
PYTEST := $(BIN)/python -m pytest --numprocesses auto --dist loadfile --no-loadscope-reorder --durations 15
FUZZ_TARGETS := $(notdir $(wildcard fuzz/corpus/*))

.PHONY: demo demo-web test test-all check format bench fuzz clean help

help:
	@echo "make demo      set up and run the main job on the embedded model (results in $(OUT))"
	@echo "make demo-web  set up and open the page on the embedded model, ready to train (in $(WEB), at PORT=$(PORT))"
	@echo "make test      set up and run the tests (make test-all: the slow ones too)"
	@echo "make check     lint, format and types"
	@echo "make format    rewrite the code as the formatter wants it"
	@echo "make bench     measure speed (results in bench/results)"
	@echo "make fuzz      run every reader on mutated files, FUZZ_SECONDS=$(FUZZ_SECONDS) each (Linux)"
	@echo "make clean     remove what the tools left (not $(VENV))"

demo: $(VENV)/.installed
	$(BIN)/tincture demo --out $(OUT)

demo-web: $(VENV)/.installed-ui
	$(BIN)/python tools/demo_web.py $(WEB) --port $(PORT)

test: $(VENV)/.installed-dev
	$(PYTEST) -m "not slow"

test-all: $(VENV)/.installed-dev
	$(PYTEST)

check: $(VENV)/.installed-dev
	$(BIN)/ruff check $(CODE)
	$(BIN)/ruff format --check $(CODE)
	$(BIN)/mypy $(TYPED)

format: $(VENV)/.installed-dev
	$(BIN)/ruff check --fix $(CODE)
	$(BIN)/ruff format $(CODE)

bench: $(VENV)/.installed-dev
	$(BIN)/python bench/run.py

fuzz: $(VENV)/.installed-fuzz
	for target in $(FUZZ_TARGETS); do $(BIN)/python fuzz/run.py $$target --seconds $(FUZZ_SECONDS) || exit 1; done

clean:
	rm -rf build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis fuzz/findings $(OUT)
	find src tools bench tests fuzz -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Tincture needs Python 3.11 or newer; set PYTHON")'
	$(PYTHON) -m venv $(VENV)

# The build backend is installed first and used without isolation, so that the constraints hold for it too.
$(VENV)/.installed: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) hatchling editables
	$(PIP) --no-build-isolation --editable .
	touch $@

$(VENV)/.installed-ui: $(VENV)/.installed
	$(PIP) --no-build-isolation --editable '.[ui]'
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(PIP) --no-build-isolation --editable '.[dev]'
	touch $@

$(VENV)/.installed-fuzz: $(VENV)/.installed
	$(PIP) --no-build-isolation --editable '.[fuzz]'
	touch $@
