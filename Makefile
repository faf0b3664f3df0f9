# One command for each wish. `make` alone lists them.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.DEFAULT_GOAL := help
.PHONY: help install demo test check audit bench fuzz proto docs clean

help: ## list the commands
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 10

install: $(VENV)/.installed ## make the virtual environment and install everything into it

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[all,dev]'
	@touch $@

demo: install ## embed and score real sentences by real models, through an embedded Redis
	@$(BIN)/inference-worker demo

test: install ## the whole test suite, on a redis-server that it starts itself
	$(BIN)/pytest

check: install ## lint, format and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: install ## the figures of the main job, each beside its floor
	$(BIN)/python -m benchmarks

audit: install ## known vulnerabilities in the pinned packages, where the advisories can be reached
	$(BIN)/python .ci/audit

fuzz: install ## each decoder of foreign bytes, a minute long; what reaches new code joins tests/fuzz/corpus
	$(BIN)/python -m tests.fuzz --keep

# By an old release: generated code runs with its own protobuf and newer ones, never with older ones.
proto: ## write gateway/grpc/pb anew from gateway/grpc/inference.proto
	$(PYTHON) -m venv build/proto
	build/proto/bin/pip install --quiet --disable-pip-version-check grpcio-tools==1.76.0
	build/proto/bin/python -m grpc_tools.protoc -Igateway/grpc/pb=gateway/grpc --python_out=. --pyi_out=. \
		gateway/grpc/pb/inference.proto

docs: install ## docs/reference anew from the code, and all of docs/ as a site in build/site
	$(BIN)/python -m tests.site
	$(BIN)/mkdocs build --strict

clean: ## remove what these commands made
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist
