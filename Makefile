# Python of the virtual environment; everything here runs in it.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check
# uv trusts whom the machine trusts, as pip does.
export UV_SYSTEM_CERTS := 1
# Three workers, each with a Prefect server of its own: on two cores too, as much of the tests is waiting. The tests of a
# file stay together and share its fixtures.
PARALLEL := -n 3 --dist loadfile

.PHONY: demo test check format lock soak bench versions live screenshots clean

# Runs the main job against the sandbox: no key, no cost. Open out/index.html afterwards.
demo: .venv/ready
	$(BIN)/python flows/generate_videos.py examples/prompts.csv --output-dir out --sandbox

test: .venv/ready
	$(BIN)/pytest $(PARALLEL)

check: .venv/ready
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/pyright

format: .venv/ready
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

# More than an hour; one part: .venv/bin/python benchmarks/run.py overhead
bench: .venv/ready
	$(BIN)/python benchmarks/run.py

# Exact versions of everything, for all supported Pythons and systems.
lock: .venv/ready
	$(BIN)/uv pip compile pyproject.toml --group dev --extra excel --extra parquet --extra postgres --extra s3 \
		--universal --python-version 3.11 --no-header --no-annotate --no-emit-index-url --no-emit-find-links --output-file requirements.lock

# Kills runs at random moments and holds the ledger against the service's own counts: about ten minutes.
soak: .venv/ready
	$(BIN)/python tests/support/kill_harness.py --rows 100 --kills 200
	$(BIN)/pytest -m soak --timeout 900

# The oldest allowed versions on 3.11 and 3.13, the newest on 3.12 and 3.13: a few minutes each; half an hour each with
# the slower suites, by `make versions SLOW=--slow`.
versions: .venv/ready
	tests/support/versions.sh $(SLOW)

# Buys about five clips of the cheapest model from the real service: at most one dollar.
live: .venv/ready
	@if [ -z "$$TOGETHER_API_KEY" ]; then \
		echo "make live buys videos for up to one dollar: set TOGETHER_API_KEY" >&2; exit 2; fi
	TOGETHER_LIVE=1 $(BIN)/pytest -m live --timeout 3600 tests/flows/test_happy_paths.py

# The README's and docs' pictures, from runs against the sandbox, in Chromium.
screenshots: .venv/ready
	$(BIN)/python tests/support/screenshots.py

# By uv, which takes seconds where pip takes minutes; by pip where uv cannot be had or fails. Where Python may write no
# bytecode it is made here, as pip makes it: every start would compile Prefect anew, for a second.
.venv/ready: requirements.lock pyproject.toml
	$(PYTHON) -m venv .venv
	$(PIP) install --constraint requirements.lock uv && $(BIN)/uv pip install --quiet --python $(BIN)/python \
		$(if $(PYTHONDONTWRITEBYTECODE),--compile-bytecode) --requirement requirements.lock --editable . || \
		{ $(PIP) install --requirement requirements.lock && $(PIP) install --no-deps --editable .; }
	touch $@

clean:
	rm -rf .venv out dist .pytest_cache .ruff_cache .hypothesis
