# `make` alone lists the targets. Everything else is one command each.

BINARY      := bin/medilab-webhooks
VERSION     := $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
COMMIT      := $(shell git rev-parse HEAD 2>/dev/null)
GO          ?= go
# What the tools of this file are; a newer one is a change to review.
STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2
# Not ST1005: an error may begin with a name, such as Postgres. Not SA1008: headers go out as the
# guide and webhooks write them, not as Go would.
CHECKS      := inherit,ST1000,ST1016,ST1020,ST1021,-ST1005,-SA1008
CYCLONEDX   := github.com/CycloneDX/cyclonedx-gomod/cmd/cyclonedx-gomod@v1.10.0
OPENAPI_TS  := openapi-typescript@7.13.0
FUZZTIME    ?= 20s
BENCH       ?=
DEMO        ?=
# No test hangs for that long: each wait has its own bound. A busy machine takes a while.
TIMEOUT     ?= 30m
# Packages that are tested at once, however few the cores: most of a test's time it waits.
PACKAGES    ?= 6
# The packages in which much runs at once.
RACED       := $(GO) list ./... | grep -E '/webhooks/(commands|eventstore|http|projections)' | grep -vE '/http/(admin|docs)$$'
# The packages that drive the built binary, or a browser.
DRIVING     := '/webhooks/(cmd/(e2e|demo|security)|http/(admin|docs))(/|$$)'
# How much `make faults` breaks: ci takes five minutes; -seed=N repeats a campaign's timing.
FAULTS      ?= -campaign=ci

.DEFAULT_GOAL := help

.PHONY: help
help: ## List the targets
	@awk 'BEGIN {FS = ":.*## "} /^[a-z][a-z0-9-]*:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: build
build: ## Build bin/medilab-webhooks
	$(GO) build -buildvcs=false -ldflags '-X main.version=$(VERSION) -X main.commit=$(COMMIT)' -o $(BINARY) ./cmd/medilab-webhooks

.PHONY: run
run: build ## Build and serve on an embedded Postgres (data in ./data)
	$(BINARY) serve

.PHONY: test
test: ## Run every test but those of e2e
	$(GO) test -p $(PACKAGES) -vet=off -ldflags=-w -timeout $(TIMEOUT) $$($(GO) list ./... | grep -vE $(DRIVING))

.PHONY: e2e
e2e: export MEDILAB_TEST_ALL := 1
e2e: drive faults ## Drive the built binary and the panel, then break it (FAULTS='-campaign=long')

.PHONY: drive
drive: ## Run the tests of e2e that are no fault campaign
	$(GO) test -count=1 -vet=off -ldflags=-w -timeout $(TIMEOUT) $$($(GO) list ./... | grep -E $(DRIVING))

.PHONY: faults
faults: ## Run the fault campaign alone
	$(GO) test -count=1 -v -timeout 90m ./cmd/e2e/faults $(FAULTS)

.PHONY: clients
clients: ## Lint the API's description and use it by generated clients (needs node and npm)
	MEDILAB_CLIENTS=1 $(GO) test -count=1 -timeout $(TIMEOUT) ./cmd/e2e/clients

SERVER      ?= http://127.0.0.1:8000
TYPES       ?= bin/medilab-webhooks.d.ts

.PHONY: types
types: ## Generate TypeScript types of a running server's API (SERVER=URL TYPES=FILE; needs npm)
	npx --yes $(OPENAPI_TS) $(SERVER)/api/v1/openapi.json -o $(TYPES)

.PHONY: race
race: ## Run the tests of everything concurrent under the race detector
	$(GO) test -p $(PACKAGES) -race -timeout $(TIMEOUT) $$($(RACED))

.PHONY: lint
lint: ## Check formatting, go vet and staticcheck
	@unformatted="$$(gofmt -l .)"; \
	if [ -n "$$unformatted" ]; then echo "not gofmt'ed:"; echo "$$unformatted"; exit 1; fi
	$(GO) vet ./...
	$(GO) run $(STATICCHECK) -checks '$(CHECKS)' ./...

.PHONY: fuzz
fuzz: ## Fuzz each target for FUZZTIME (20s)
	@set -e; for pkg in $$(grep -rl --include='*_test.go' '^func Fuzz' . | xargs -n 1 dirname | sort -u); do \
		for target in $$($(GO) test -list '^Fuzz' $$pkg | grep '^Fuzz' || true); do \
			echo "$$pkg $$target"; \
			$(GO) test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) $$pkg; \
		done; \
	done

.PHONY: bench
bench: build ## Measure the product beside the machine's ceiling; options in BENCH='--quick --json'
	$(GO) build -o bin/bench ./cmd/bench
	bin/bench --binary $(BINARY) --version '$(VERSION)' $(BENCH)

.PHONY: peers
peers: ## Build bin/peers: senders on River and JetStream for BENCH='--ceiling "bin/peers --queue river"'
	cd cmd/bench/peers && $(GO) vet . && $(GO) build -buildvcs=false -o ../../../bin/peers .

.PHONY: cluster
cluster: build ## Run three nodes on a Postgres that fails over, until Ctrl-C (docs/cluster.md)
	$(GO) build -buildvcs=false -o bin/cluster ./cmd/cluster
	bin/cluster --binary $(BINARY)

.PHONY: demo
demo: build ## Start a clinic that emits events, and receivers of five kinds, to look at (DEMO='-rate 20')
	$(GO) build -o bin/demo ./cmd/demo
	bin/demo --binary $(BINARY) $(DEMO)

.PHONY: screenshots
screenshots: ## Write pictures of each page of the panel, with a clinic's data, into bin/screenshots
	mkdir -p bin/screenshots
	MEDILAB_TEST_SHOTS=$(CURDIR)/bin/screenshots $(GO) test -count=1 -timeout $(TIMEOUT) -run EveryPageIsAccessible/full ./cmd/demo

.PHONY: sbom
sbom: build ## List what the binary is made of (CycloneDX) in bin/sbom.json
	$(GO) run $(CYCLONEDX) bin -json -licenses -std -version '$(VERSION)' -output bin/sbom.json $(BINARY)

.PHONY: release
release: ## Build what a release consists of into dist/: binaries, packages, SBOMs, checksums
	docs/deploy/release.sh dist

.PHONY: deploy-check
deploy-check: ## Check the files of docs/deploy, and that a release is the same bytes when built twice
	docs/deploy/check.sh

.PHONY: clean
clean: ## Remove what was built; data is never touched
	rm -rf bin dist
