# `make help` lists what there is. Every target does its own set-up.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
GO ?= go
BIN := bin/dayfly
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
TOOLS := .cache/bin
PACKAGES ?= ./...
FUZZTIME ?= 10s

.PHONY: help
help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/make \1\t\2/' | expand -t 16

.PHONY: build
build: ## build bin/dayfly
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '-s -w -X main.version=$(VERSION)' -o $(BIN) ./cmd/dayfly

.PHONY: demo
demo: build ## show everything on this machine with the sample project
	./$(BIN) demo

.PHONY: test
test: ## run all tests and list what was skipped
	scripts/setup
	@$(GO) build -o $(TOOLS)/testreport ./internal/tools/testreport
	@# The race detector needs a C compiler; without one the tests run all the same.
	@race=-race; command -v "$${CC:-cc}" >/dev/null 2>&1 || { race=; echo "no C compiler was found: testing without the race detector"; }; \
	set -x; $(GO) test -json $$race -shuffle=on -p 2 -timeout 20m $(PACKAGES) | $(TOOLS)/testreport

.PHONY: torture
torture: ## kill the server at every point, and print what was checked; takes an hour and a half
	$(GO) test -timeout 20m -v -tags crashpoints -run TestWhoIsKilled ./internal/database/keeper
	$(GO) test -timeout 180m -v ./test/torture -args -long

.PHONY: fuzz
fuzz: ## give every fuzz target FUZZTIME
	scripts/fuzz $(FUZZTIME)

.PHONY: bench
bench: build ## run the benchmarks behind the numbers
	scripts/setup
	bench/run

.PHONY: lint
lint: $(TOOLS)/golangci-lint ## run the linters
	$(TOOLS)/golangci-lint run
	GOOS=darwin $(GO) vet ./cmd/... ./internal/cli/... ./internal/api/client/... ./internal/spec/...
	GOOS=windows $(GO) vet ./cmd/... ./internal/cli/... ./internal/api/client/... ./internal/spec/...
	$(GO) mod tidy -diff

$(TOOLS)/golangci-lint: tools/go.mod tools/go.sum
	CGO_ENABLED=0 $(GO) build -C tools -o ../$@ github.com/golangci/golangci-lint/v2/cmd/golangci-lint

.PHONY: clean
clean: ## remove what was built
	rm -rf bin .cache
