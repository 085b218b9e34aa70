# `make help` lists what there is to do. Everything that is built beside the
# programs (the linter, critest, images) is kept in CACHE, outside the checkout.

SHELL       := /bin/bash
.SHELLFLAGS := -euo pipefail -c
export PATH := $(PATH):/usr/local/go/bin:/usr/sbin:/sbin

CACHE   := $(or $(XDG_CACHE_HOME),$(if $(filter 0,$(shell id -u)),/var/cache,$(HOME)/.cache))/cri-mini-test
VERSION := $(shell git -c safe.directory='*' describe --tags --always --dirty 2>/dev/null || echo unknown)

GOLANGCI_VERSION := v2.15.0
GOLANGCI         := $(CACHE)/golangci-lint-$(GOLANGCI_VERSION)/golangci-lint

# What a build, the tests and the demo need of Debian 12 beside Go.
PACKAGES := gcc libc6-dev libseccomp-dev pkg-config git ca-certificates util-linux \
            iproute2 iptables nftables procps containernetworking-plugins busybox-static curl umoci
# What the emulated nodes are made with and run in.
NODE_PACKAGES := qemu-system-x86 mmdebstrap e2fsprogs zstd xz-utils lz4

# The go command asks git for a version stamp, and git tells root nothing about a
# checkout of somebody else's: VERSION is the stamp.
export GOFLAGS := $(strip $(GOFLAGS) -buildvcs=false)

# Static: the programs run in other mount namespaces and on other distributions.
# netgo and osusergo keep glibc's resolver, which wants shared libraries, out.
export CGO_ENABLED := 1
GOFLAGS_STATIC := -trimpath -tags netgo,osusergo \
                  -ldflags '-s -w -extldflags -static -X main.version=$(VERSION)'

.PHONY: help deps node-deps build check test test-root test-oci node-test demo bench clean fmt vet lint unit
.DEFAULT_GOAL := help

help: ## list these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

deps: ## install what Debian packages are missing (root)
	@missing=(); for p in $(PACKAGES) $(EXTRA_PACKAGES); do \
	    [[ $$(dpkg-query -W -f '$${db:Status-Status}' $$p 2>/dev/null) == installed ]] || missing+=($$p); \
	done; \
	if [[ $${#missing[@]} -gt 0 ]]; then \
	    [[ $$(id -u) == 0 ]] || { echo "missing packages: $${missing[*]}; run: sudo make deps" >&2; exit 1; }; \
	    echo "installing $${missing[*]}"; \
	    export DEBIAN_FRONTEND=noninteractive; \
	    apt-get update -qq && apt-get install -qq -y --no-install-recommends "$${missing[@]}" >/dev/null; \
	fi
	@command -v go >/dev/null || { echo "no go in PATH or /usr/local/go/bin; see https://go.dev/dl/ for Go 1.26 or later" >&2; exit 1; }

node-deps: EXTRA_PACKAGES := $(NODE_PACKAGES)
node-deps: deps

build: ## build cri-mini, mini-runc and cri-mini-init into ./bin
	@mkdir -p bin
	go build $(GOFLAGS_STATIC) -o bin/ ./cmd/cri-mini ./cmd/cri-mini-init
	go build $(GOFLAGS_STATIC) -o bin/mini-runc-full ./cmd/mini-runc
	CGO_ENABLED=0 go build $(GOFLAGS_STATIC) -o bin/mini-runc ./cmd/mini-runc

check: fmt vet lint unit ## format, vet, lint, architecture and unit tests; no root needed

fmt:
	@out=$$(gofmt -l .); [[ -z $$out ]] || { echo "gofmt -w these:"; echo "$$out"; exit 1; }

vet:
	go vet ./...
	CGO_ENABLED=0 go vet ./cmd/mini-runc

lint: $(GOLANGCI)
	$(GOLANGCI) run ./...

$(GOLANGCI):
	@echo "building golangci-lint $(GOLANGCI_VERSION) into $(@D) (a minute or two, once)"
	@mkdir -p $(@D)
	CGO_ENABLED=0 GOBIN=$(@D) go install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(GOLANGCI_VERSION)

# The crash test takes minutes and has a stage of its own in test/all.
unit:
	go run ./test/run $$(go list ./... | grep -v /test/crash$$)

test: node-deps build ## install what is missing, then run every test there is (root)
	@CACHE=$(CACHE) test/all

test-root: deps build ## unit and root tests of all packages, in namespaces of their own (root)
	@test/root $$(go list ./... | grep -v /test/crash$$)

test-oci: deps build ## others judge mini-runc: runtime-tools, podman, containerd with critest (root)
	@test/oci/all

node-test: node-deps build ## the same kernel work and critest in emulated nodes: 6.1, 6.12, systemd, AppArmor (root)
	@test/node/check

demo: deps build ## a pod of two containers from a registry, every step timed (root)
	@demo/demo

bench: deps build ## load over the socket beside the bare system calls; table and bench.json (root)
	@bench/run

clean: ## remove ./bin; the cache stays (/var/cache/cri-mini-test, or ~/.cache/cri-mini-test of a user)
	rm -rf bin
