# Wrenn: two commands are enough. `make run` runs a command in a microVM, `make test` runs the tests.
# Each installs what it needs: Debian packages, a virtual environment, the package with its C part.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

PYTHON ?= python3
VENV := .venv
PREFIX ?= /opt/wrenn
BINDIR ?= /usr/local/bin

# What the product runs on, and what its tests need besides.
HOST_PACKAGES := python3-venv gcc libc6-dev qemu-system-x86 nftables mmdebstrap e2fsprogs
TEST_PACKAGES := iproute2 busybox-static shellcheck xfsprogs procps util-linux mount tmux curl chromium fonts-dejavu-core postgresql systemd

# How often the benchmarks measure each thing.
N ?= 10

# How many processes share the tests; each is an installation of its own.
WORKERS ?= 2

# For the lab host: a binary to test besides, and pytest's arguments.
FIRECRACKER ?=
LAB_ARGS ?=
LAB_FIRECRACKER = $(if $(FIRECRACKER),--firecracker "$(FIRECRACKER)")

.PHONY: help run test test-all lab lab-shell check bench bench-boot bench-start bench-pause bench-fork bench-pager bench-collapse bench-disk bench-envd bench-server fresh install proto clean packages test-packages

help: ## Show this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1|\2/p' $(MAKEFILE_LIST) | while IFS='|' read -r name text; do printf '  make %-14s %s\n' "$$name" "$$text"; done

run: $(VENV)/.installed ## Make a microVM, run `echo hello` in it, clean up
	@$(VENV)/bin/wrenn run -- echo hello

test: $(VENV)/.dev test-packages ## Run the tests, WORKERS=2 at a time (at most 30 minutes)
	@$(VENV)/bin/python -m pytest -n $(WORKERS) --dist loadfile -m "not long and not lab_host"

test-all: $(VENV)/.dev test-packages ## Run the tests, the long ones too
	@$(VENV)/bin/python -m pytest

lab: $(VENV)/.dev test-packages ## Run tests in the lab host (LAB_ARGS="-k dm", FIRECRACKER=FILE)
	@PYTHONPATH=tests $(VENV)/bin/python -m lab_host run $(LAB_FIRECRACKER) -- $(LAB_ARGS)

lab-shell: $(VENV)/.dev test-packages ## A shell in the lab host (docs/lab.md)
	@PYTHONPATH=tests $(VENV)/bin/python -m lab_host shell $(LAB_FIRECRACKER)

check: $(VENV)/.dev test-packages ## Format, lint, types, unit tests
	@$(VENV)/bin/ruff format --check src tests
	@$(VENV)/bin/ruff check src tests
	@$(VENV)/bin/mypy
	@$(VENV)/bin/python -m pytest -q tests/unit

bench: $(VENV)/.dev test-packages ## Measure all that has limits, medians of N=10 (half an hour)
	@$(VENV)/bin/python tests/bench/every.py -n $(N)

bench-boot: $(VENV)/.dev test-packages ## Measure boot and exec, beside a bare QEMU
	@$(VENV)/bin/python tests/bench/boot.py -n $(N)

bench-start: $(VENV)/.dev test-packages ## Measure instant start, beside a script
	@$(VENV)/bin/python tests/bench/start.py -n $(N)

bench-pause: $(VENV)/.dev test-packages ## Measure pause and resume, beside a script
	@$(VENV)/bin/python tests/bench/pause.py -n $(N)

bench-fork: $(VENV)/.dev test-packages ## Measure forks: ten children, what their source notices
	@$(VENV)/bin/python tests/bench/fork.py -n $(N)

bench-collapse: $(VENV)/.dev test-packages ## Measure a collapse, beside cp
	@$(VENV)/bin/python tests/bench/collapse.py -n $(N)

bench-disk: $(VENV)/.dev test-packages ## Measure disks of each driver, and what a guest gets of them
	@$(VENV)/bin/python tests/bench/disk.py -n $(N)

bench-envd: $(VENV)/.dev test-packages ## Measure the guest agent inside a guest (minutes)
	@$(VENV)/bin/python tests/bench/envd.py

bench-server: $(VENV)/.dev test-packages ## Measure what the server adds to each call
	@$(VENV)/bin/python tests/bench/server.py -n $(N)

bench-pager: $(VENV)/.dev test-packages ## Measure the pager beside one in C
	@$(VENV)/bin/python tests/bench/pager.py -n $(N)

fresh: $(VENV)/.dev test-packages ## Prove `make run` and `make test` in a fresh Debian 12
	@$(VENV)/bin/python tests/bench/fresh.py

proto: $(VENV)/.dev ## Generate code from proto/
	@PATH="$(CURDIR)/$(VENV)/bin:$$PATH" buf generate proto --template proto/buf.gen.yaml

install: packages ## Put `wrenn` on PATH (PREFIX=/opt/wrenn, BINDIR=/usr/local/bin)
	@echo "installing into $(PREFIX), and $(BINDIR)/wrenn"
	@$(PYTHON) -m venv $(PREFIX)
	@$(PREFIX)/bin/pip install --quiet .
	@mkdir -p $(BINDIR)
	@ln -sfn $(PREFIX)/bin/wrenn $(BINDIR)/wrenn
	@$(BINDIR)/wrenn version

clean: ## Remove what was built in this directory (not /var/lib/wrenn)
	@rm -rf $(VENV) .cache build dist src/wrennd.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	@find src -name '*.so' -delete
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

packages:
	@$(call install_missing,$(HOST_PACKAGES))

test-packages:
	@$(call install_missing,$(HOST_PACKAGES) $(TEST_PACKAGES))

# The virtual environment is made anew when what it holds was declared anew.
$(VENV)/.installed: pyproject.toml src/wrennd/qemu_vmm/ram_shim.c | packages
	@echo "installing wrennd into $(VENV)" >&2
	@[ -x $(VENV)/bin/python ] || $(PYTHON) -m venv $(VENV)
	@$(VENV)/bin/pip install --quiet --editable .
# A VMM can't write where its modules lie: without this each start compiles 42 of them anew (65 ms).
	@$(VENV)/bin/python -m compileall -q src/wrennd
	@touch $@

$(VENV)/.dev: $(VENV)/.installed
	@echo "installing the development tools into $(VENV)" >&2
	@$(VENV)/bin/pip install --quiet --editable '.[dev]'
	@touch $@

# Ask dpkg first: apt, and with it the network, is only used when something is missing.
define install_missing
missing=(); for p in $(1); do \
  [ "$$(dpkg-query -W -f='$${db:Status-Status}' $$p 2>/dev/null || true)" = installed ] || missing+=("$$p"); \
done; \
if [ $${#missing[@]} -gt 0 ]; then \
  [ "$$(id -u)" = 0 ] || { echo "make: these packages are missing, and only root can install them: $${missing[*]}" >&2; exit 1; }; \
  echo "installing $${missing[*]}" >&2; \
  apt-get update -qq >&2 && DEBIAN_FRONTEND=noninteractive apt-get install -o DPkg::Lock::Timeout=300 -y -qq --no-install-recommends "$${missing[@]}" >/dev/null; \
fi
endef
