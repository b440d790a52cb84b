# make demo    a real mailbox is synchronised by two workers, and what was measured
# make test    all tests; as root it also installs the Debian packages they use
# make fuzz    the tests with made-up input, over and over (MINUTES=5)
# make check   what is quick: style, import rules, types, unit tests
# make bench   the benchmarks (ONLY=name runs one, JSON=file writes the numbers there too)
# make storm   a site under all the faults we can make (SEEDS="1 2 3" MINUTES=5 AT_ONCE=1)
# make docs    the documentation as HTML, in docs/_build/html
# make clean   removes what the others made, but not .hypothesis, where make fuzz keeps its finds
#
# Options: PYTHON=python3.13 (the interpreter of a new .venv), PYTEST='-k lanes -x' (for make test),
# JOBS=1 (test files run at the same time; 4 if not given, since most of them wait for servers);
# for make demo: KEEP=1 leaves it running, DEMO_KILL=1 kills a worker half way.

PYTHON ?= python3
JOBS ?= 4
SEEDS ?= 1
MINUTES ?= 5
AT_ONCE ?= 1
export PYTHON

RUN = .venv/bin/python
PIP_OPTIONS = --quiet --disable-pip-version-check --no-input

.PHONY: help demo test fuzz check bench storm docs clean debian-packages
.DEFAULT_GOAL := help

help:
	@sed -n '/^#/!q; s/^# \{0,1\}//p' Makefile

VENVS = .venv .venv-zeo .venv-plone .venv-peers

# A stamp in the directory says that all of setup.py and constraints.txt is installed, so an
# environment made by hand, or half made, is completed and not trusted. It holds the place of the
# checkout: an environment that was moved or copied along is looked at anew.
MOVED := $(foreach stamp,$(wildcard $(VENVS:=/.complete)),\
    $(shell [ "$$(cat $(stamp))" = "$$(pwd -P)" ] || echo $(stamp)))
.PHONY: $(MOVED)

.venv: .venv/.complete
.venv/.complete: setup.py constraints.txt pyproject.toml .ci/make-venv
	@.ci/make-venv .venv
	$(RUN) -m pip install $(PIP_OPTIONS) -c constraints.txt -e '.[test]'
	@pwd -P > $@

.venv/.docs-complete: .venv/.complete
	$(RUN) -m pip install $(PIP_OPTIONS) -c constraints.txt -e '.[docs]'
	@touch $@

# The ZEO server of the tests and of the demonstration runs here, where none of our packages can
# be imported: a ZEO server needs none of our code.
.venv-zeo: .venv-zeo/.complete
.venv-zeo/.complete: constraints.txt .ci/make-venv
	@.ci/make-venv .venv-zeo
	.venv-zeo/bin/python -m pip install $(PIP_OPTIONS) -c constraints.txt ZEO
	@pwd -P > $@

# Where the tests see a Zope inside Plone: plone.protect and what it needs, beside what is in .venv.
.venv-plone: .venv-plone/.complete
.venv-plone/.complete: .venv/.complete constraints.txt .ci/make-venv
	@.ci/make-venv .venv-plone
	@$(RUN) -c 'import sysconfig; print("import site; site.addsitedir(%r)" % sysconfig.get_path("purelib"))' \
	    > $$(.venv-plone/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/main.pth
	.venv-plone/bin/python -m pip install $(PIP_OPTIONS) -c constraints.txt plone.protect
	@pwd -P > $@

# Other queues, for `make bench ONLY=peers`; nothing of ours can be imported there.
.venv-peers: .venv-peers/.complete
.venv-peers/.complete: constraints.txt .ci/make-venv
	@.ci/apt-packages postgresql redis-server || true
	@.ci/make-venv .venv-peers
	.venv-peers/bin/python -m pip install $(PIP_OPTIONS) -c constraints.txt celery dramatiq huey \
	    procrastinate 'psycopg[binary]' psycopg-pool redis rq
	@pwd -P > $@

# A package that is missing is no reason not to run: what needs it is skipped with a reason.
debian-packages:
	@.ci/apt-packages $$(sed 's/#.*//' debian-packages.txt) || true

demo: .venv .venv-zeo
	$(RUN) -m bench.demo

# Apart from the rest, because it is compiled with packages of Debian, which only `make test`
# installs; where they are missing the tests that need it are skipped.
.venv/.ldap-complete: .venv/.complete | debian-packages
	@$(RUN) -m pip install $(PIP_OPTIONS) -c constraints.txt -e '.[ldap]' && touch $@ \
	    || echo "python-ldap was not built: its tests are skipped" >&2

test: debian-packages .venv .venv-zeo .venv-plone .venv/.ldap-complete
	$(RUN) -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder $(PYTEST)

# Other examples in each round, five times as many as in `make test`.
fuzz: export HYPOTHESIS_PROFILE = fuzz
fuzz: .venv .venv-zeo
	@end=$$(($$(date +%s) + 60 * $(MINUTES))); until [ $$(date +%s) -ge $$end ]; do \
	    $(RUN) -m pytest -q -n $(JOBS) -o timeout=3600 tests/fuzz $(PYTEST) || exit; done

check: .venv
	$(RUN) -m ruff check .
	.venv/bin/lint-imports --no-logo
	$(RUN) -m mypy --no-error-summary
	$(RUN) -m pytest -q tests/unit tests/test_architecture.py $(PYTEST)

bench: .venv .venv-zeo $(if $(filter peers,$(ONLY)),.venv-peers)
	$(RUN) -m bench.run $(if $(ONLY),--only $(ONLY)) $(if $(JSON),--json $(JSON))

storm: debian-packages .venv .venv-zeo
	$(RUN) -m tests.storm --seeds "$(SEEDS)" --minutes $(MINUTES) --at-once $(AT_ONCE)

docs: .venv/.docs-complete
	$(RUN) docs/configuration.py
	$(RUN) -m sphinx -W --keep-going -q -b html docs docs/_build/html
	@echo "docs/_build/html/index.html"

clean:
	rm -rf $(VENVS) docs/_build build dist ./*.egg-info \
	    .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
