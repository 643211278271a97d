# SPDX-License-Identifier: GPL-3.0-or-later
#
# Everything starts here; `make help` lists it. Debian 12 or later, as root, with nothing but git and make installed.

SHELL := /bin/bash
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

PYTHON := .venv/bin/python
COLLECTIONS := $(CURDIR)/.cache/collections
LAB := PYTHONPATH=$(COLLECTIONS) ANSIBLE_COLLECTIONS_PATH=$(COLLECTIONS) $(PYTHON)
export PATH := $(CURDIR)/.venv/bin:$(PATH)
PARTS ?=
SCENARIOS ?=

.PHONY: help
help: ## say what there is
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{ printf "make %-14s %s\n", $$1, $$2 }'

.PHONY: setup
setup: ## install what is missing: Debian packages, pinned tools in .venv
	@tests/ci/setup.sh

.PHONY: bpf
bpf: setup ## build the BPF objects and programs into the roles
	@$(MAKE) -C bpf

.PHONY: test
test: setup ## run every check, or some: make test PARTS="lint unit"
	@$(PYTHON) tests/ci/run.py $(PARTS)

.PHONY: test-full
test-full: setup ## every case of the kill and fail matrices: make test-full PARTS=stack (hours)
	@STACK_FAULTS=all $(PYTHON) tests/ci/run.py $(PARTS)

.PHONY: lint
lint: setup ## run the static checks only
	@$(PYTHON) tests/ci/run.py lint

.PHONY: format
format: setup ## format Python and C
	@ruff check --quiet --fix-only . && ruff format .
	@git ls-files --cached --others --exclude-standard -- '*.c' '*.h' | xargs -r clang-format -i --style=file:bpf/.clang-format

.PHONY: lab
lab: bpf ## ten hosts on this machine, accelerated and balanced, verified and measured
	@$(LAB) tests/lab/lab.py run

.PHONY: report
report: setup ## the lab that is up as one page: ebpf-fleet-report.html
	@$(LAB) tests/lab/lab.py report

.PHONY: lab-status
lab-status: setup ## what of the lab is up
	@$(LAB) tests/lab/lab.py status

.PHONY: lab-down
lab-down: setup ## take the lab away again
	@$(LAB) tests/lab/lab.py down

.PHONY: molecule
molecule: bpf ## every scenario on virtual machines, or some: make molecule SCENARIOS="modules bcc"
	@$(PYTHON) molecule/run.py $(SCENARIOS)

.PHONY: molecule-down
molecule-down: setup ## take away virtual machines that were booted by hand
	@$(PYTHON) molecule/machines/machines.py down

.PHONY: bench bench-sockmap bench-xdp bench-converge bench-metrics
bench: ## all benchmarks; exits 1 when a target is missed
	@missed=0; for each in sockmap xdp converge metrics; do $(MAKE) bench-$$each || missed=1; done; exit $$missed

bench-sockmap: bpf ## the sockmap data plane against plain TCP
	@$(LAB) tests/bench/sockmap.py

bench-xdp: bpf ## the load balancer against floors, nginx, HAProxy and nftables
	@$(LAB) tests/bench/xdp.py

bench-converge: bpf ## runs of stacks against single tasks and shell scripts, on fifty hosts
	@$(LAB) tests/bench/converge.py

bench-metrics: bpf ## what it costs a host to be scraped, with 10,000 entries in maps
	@$(LAB) tests/bench/metrics.py

.PHONY: build
build: bpf ## the collection's tarball, in build/
	@rm -rf build
	@ansible-galaxy collection build --output-path build

.PHONY: changelog
changelog: setup ## write CHANGELOG.rst from changelogs/fragments/ for the version of galaxy.yml
	@antsibull-changelog release --update-existing --reload-plugins

.PHONY: pins
pins: ## resolve requirements/*.in anew
	@tests/ci/pins.sh

.PHONY: clean
clean: ## remove what was built, the tools and the caches (images of virtual machines: ~/.cache/ebpf-fleet)
	@rm -rf build .venv .venv-galaxy .cache .ansible tests/output
	@find . \( -name '*.bpf.o' -o -name '*.pyz' \) -type f -delete
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
