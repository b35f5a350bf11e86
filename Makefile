# Two commands for a newcomer: `make demo` and `make test`. Each makes .venv if there is none.

PYTHON ?= python3
WORKERS ?= 2
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready

# As tests/report/test_browser.py looks for them.
BROWSERS := chromium chromium-browser google-chrome google-chrome-stable

.PHONY: demo test browser test-slow check bench bench-long clean

demo: $(READY)
	$(BIN)/transferscope demo --out demo --resume

# WORKERS at a time: make test WORKERS=1 for one.
test: $(READY) browser
	$(BIN)/python -m pytest --numprocesses $(WORKERS) --dist worksteal

# Some tests open the atlas in a browser: one is installed where that is possible without a question.
browser:
	@for name in $(BROWSERS); do ! command -v $$name >/dev/null || exit 0; done; \
	if [ "$$(id -u)" -eq 0 ]; then root=; else root="sudo -n"; fi; \
	if ! command -v apt-get >/dev/null; then why="there is no apt-get; install chromium"; \
	elif [ -n "$$root" ] && ! $$root true 2>/dev/null; then why="'sudo apt-get install chromium' brings one"; \
	else \
	    echo "installing chromium (once; tests open the atlas in it)"; \
	    $$root apt-get update -qq && $$root env DEBIAN_FRONTEND=noninteractive \
	        apt-get install -y -qq chromium >/dev/null && exit 0; \
	    why="apt-get could not install chromium"; \
	fi; \
	echo "no browser here, so the tests that open the atlas in one are skipped: $$why"

test-slow: $(READY)
	$(BIN)/python -m pytest -m slow

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# make bench DATA=photos/    (class folders with train/, validation/ and test/)
bench: $(READY)
	$(BIN)/python benchmarks/main_job.py --data "$(DATA)"
	$(BIN)/python benchmarks/extraction.py --data "$(DATA)"
	$(BIN)/python benchmarks/inspection.py --data "$(DATA)"
	$(BIN)/python benchmarks/lookalikes.py --data "$(DATA)"
	$(BIN)/python benchmarks/probe_against_full.py --data "$(DATA)"
	$(BIN)/python benchmarks/probe.py --data "$(DATA)"

# Hours; what is finished in WORK is not repeated. PEER_PYTHON, LUCENT_PYTHON: of environments that have fastai
# and lucent, see benchmarks/peers/.
# make bench-long DATA=photos/ CALTECH=caltech101/ WORK=campaign/ PEER_PYTHON=peer-fastai/bin/python \
#     LUCENT_PYTHON=peer-lucent/bin/python
bench-long: $(READY)
	$(BIN)/python benchmarks/time_to_accuracy.py --data "$(DATA)" \
	    $(if $(PEER_PYTHON),--peer-python "$(PEER_PYTHON)")
	$(BIN)/python benchmarks/strategies.py --clothing "$(DATA)" --caltech "$(CALTECH)" --work "$(WORK)"
	$(BIN)/python benchmarks/caltech101.py --data "$(CALTECH)" --work "$(WORK)"
	$(if $(LUCENT_PYTHON),$(BIN)/python benchmarks/render.py --peer-python "$(LUCENT_PYTHON)" --work "$(WORK)/render")

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	    || { echo "Python 3.11 or newer is needed: make PYTHON=/path/to/python3.11 ..."; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV) (once; torch is large)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check \
	    --constraint constraints.txt --editable ".[dev]"
	@touch $(READY)

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
