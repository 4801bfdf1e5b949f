# Everything here is incremental: go decides what to rebuild, and the rest is looked for before it is made.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

GO ?= go
LINT_VERSION := v2.15.0
LINT := .cache/bin/golangci-lint-$(LINT_VERSION)
ASSETS := internal/guestbin/assets

# A whole package of real guests under emulation, with the race detector, on two cores.
TEST_TIMEOUT ?= 25m
# Packages whose tests start guests; check leaves them out and check-vm runs only them.
VM_PACKAGES := ^gondolin$$|^gondolin/(tests|bench|examples|internal/(cli|server|vmtest|machine/qemu))(/|$$)
FUZZTIME ?= 20s

.PHONY: help deps guest build image run test check check-vm fmt lint cross fuzz bench clean

help: ## list the targets
	@awk -F':.*## ' '/^[a-z-]+:.*## / { printf "  %-10s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

deps: ## install the programs that building and testing need, if they are missing
	@scripts/deps

guest:
	@for arch in amd64 arm64; do \
		CGO_ENABLED=0 GOOS=linux GOARCH=$$arch $(GO) build -trimpath -ldflags '-s -w' \
			-o $(ASSETS)/gondolin-guest-$$arch ./cmd/gondolin-guest; \
	done

build: guest ## build bin/gondolin with the guest agents inside
	@$(GO) build -trimpath -o bin/gondolin ./cmd/gondolin

image: deps build ## build the default guest image, if the store has none
	@bin/gondolin image inspect debian:latest >/dev/null 2>&1 || bin/gondolin image build

run: deps build image ## start a guest: examples/quickstart
	@$(GO) run ./examples/quickstart

cross: ## compile for the other systems and architectures
	@GOOS=darwin GOARCH=arm64 $(GO) build ./...
	@GOOS=linux GOARCH=arm64 $(GO) build ./...

test: deps build image cross ## everything: checks, cross-builds, all tests in real guests
	@$(GO) vet ./...
	@$(GO) test ./internal/archtest
	@GONDOLIN_NO_SKIP=1 $(GO) test -race -p 2 -timeout $(TEST_TIMEOUT) ./...

check: lint ## formatting, lint, import table, race tests without guests, fuzz seeds
	@$(GO) test ./internal/archtest
	@$(GO) test -race -p 2 -timeout $(TEST_TIMEOUT) $$($(GO) list ./... | grep -vE '$(VM_PACKAGES)')

check-vm: deps build image ## race tests in real guests
	@GONDOLIN_NO_SKIP=1 $(GO) test -race -p 1 -timeout $(TEST_TIMEOUT) $$($(GO) list ./... | grep -E '$(VM_PACKAGES)')

fmt: $(LINT) ## format all Go files
	@$(LINT) fmt

lint: $(LINT) ## formatting and lint
	@$(LINT) fmt --diff
	@$(LINT) run

# Built by the Go module proxy's copy, at the one version the configuration is written for.
$(LINT):
	@mkdir -p $(@D)
	@echo "building golangci-lint $(LINT_VERSION), once: about a minute"
	@GOBIN=$(CURDIR)/.cache/lint-build GOFLAGS= $(GO) install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(LINT_VERSION)
	@mv .cache/lint-build/golangci-lint $@ && rmdir .cache/lint-build

fuzz: ## run every fuzz target for FUZZTIME (20s)
	@FUZZTIME=$(FUZZTIME) scripts/fuzz

bench: deps build image ## measure against the peers; writes bench/out
	@$(GO) run ./bench/lifecycle

clean: ## remove what was built here; images stay in the store
	@rm -rf bin .cache bench/out $(ASSETS)/gondolin-guest-*
