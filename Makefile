# Everything that is done with this repository; `make help` lists it.
SHELL := /bin/sh
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

GO ?= go
# Which Envoy tests and demo use: a release that .tools/envoy.txt pins, or a
# binary of your own (ENVOY=/path/to/envoy).
ENVOY_VERSION ?= 1.40.0
ENVOY ?= $(CURDIR)/.cache/envoy/$(ENVOY_VERSION)/envoy
# kube-apiserver and etcd for tests: built here, or a folder of your own that has both.
KUBEBUILDER_ASSETS ?= $(CURDIR)/.cache/kubernetes/$(shell cat .tools/kubernetes/go.* .tools/etcd/go.* .tools/build-kubernetes | cksum | cut -d' ' -f1)
# The helm that renders deploy/chart: built here, or one of your own.
HELM ?= $(CURDIR)/.cache/helm/$(shell cat .tools/helm/go.* .tools/build-helm | cksum | cut -d' ' -f1)/helm
# How long each fuzzer runs, and the whole of the tests may.
FUZZTIME ?= 60s
# A tenth of it is part of the tests.
SHORTFUZZ ?= 6s
TESTTIME ?= 30m

# Linter and generator, built once per state of their module.
tools := .cache/tools/$(shell cksum .tools/go.sum | cut -d' ' -f1)
lint := $(tools)/golangci-lint
gen := $(tools)/controller-gen
proto := .cache/proto/$(shell cat .tools/proto/go.sum .tools/proto/main.go | cksum | cut -d' ' -f1)
# What tests run against, as their environment.
real = ENVOY='$(abspath $(ENVOY))' HELM='$(HELM)' KUBEBUILDER_ASSETS='$(abspath $(KUBEBUILDER_ASSETS))'
# Packages whose tests have a function whose name starts with $(1).
having = $(sort $(patsubst %/,./%,$(dir $(shell grep -rlE --include='*_test.go' '^func $(1)' cmd xds snapshot tenancy identity bench 2>/dev/null))))

.PHONY: help
help: ## list these targets
	@awk -F':.*## ' '/^[a-z]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' Makefile

.PHONY: build
build: ## bin/bailiwick, a static binary
	CGO_ENABLED=0 $(GO) build -trimpath -o bin/bailiwick ./cmd/bailiwick

.PHONY: check
check: $(lint) ## format, vet, lint, dependency direction, layout, generated files
	@.tools/check-layout
	@$(GO) mod verify
	@.tools/check-generated $(MAKE) --no-print-directory generate
	@out=$$(gofmt -l cmd xds snapshot tenancy identity $(wildcard bench)); \
		[ -z "$$out" ] || { echo "not formatted, run make fmt:"; echo "$$out"; exit 1; }
	$(GO) vet ./...
	$(lint) run --allow-parallel-runners ./...

.PHONY: reproducible
reproducible: ## the last commit, built in two places, is the same bytes
	@GO='$(GO)' .tools/check-reproducible

.PHONY: test
test: envoy kubernetes helm ## all tests with the race detector, real Envoy and Kubernetes included
	@$(MAKE) --no-print-directory fuzz FUZZTIME=$(SHORTFUZZ)
	@# Go remembers results by the packages that a test imports, and not by the programs that it builds.
	$(real) $(GO) test -race -count 1 -timeout $(TESTTIME) ./...

.PHONY: fuzz
fuzz: ## every fuzzer for FUZZTIME each (60s)
	@set -e; for file in $$(grep -rlE --include='*_test.go' '^func Fuzz' cmd xds snapshot tenancy identity); do \
		for name in $$(sed -nE 's/^func (Fuzz[A-Za-z0-9_]*)\(.*/\1/p' $$file); do \
			echo "== $$name in $${file%/*}"; \
			$(GO) test -run '^$$' -fuzz "^$$name\$$" -fuzztime $(FUZZTIME) ./$${file%/*}; \
		done; \
	done

.PHONY: soak
soak: envoy kubernetes ## the long form of the load and restart tests
	@[ -n "$(call having,Test.*Soak)" ] || { echo "there are no soak tests"; exit 1; }
	BAILIWICK_SOAK=full $(real) $(GO) test -count 1 -run Soak -timeout 4h -v $(call having,Test.*Soak)

.PHONY: bench
bench: build ## the benchmarks of bench/ (SCENARIO=name for one, OUT=file for JSON, PLOTS=dir for SVG, KEEP=1 for bench/README.md)
	@$(GO) build -trimpath -o bin/bench ./bench
	@$(MAKE) --no-print-directory envoy || echo "going on without Envoy"
	bin/bench -envoy '$(wildcard $(ENVOY))' -scenario '$(SCENARIO)' $(if $(OUT),-out '$(OUT)') $(if $(PLOTS),-plots '$(PLOTS)') $(if $(KEEP),-out bench/results.json -plots bench/plots -readme bench/README.md)

.PHONY: profile
profile: build ## the same with CPU profiles in .cache/profile, and their tops
	@$(GO) build -trimpath -o bin/bench ./bench
	@rm -rf .cache/profile
	bin/bench -envoy '$(wildcard $(ENVOY))' -scenario '$(SCENARIO)' -profile .cache/profile
	@for file in .cache/profile/*.cpu.pprof; do echo "== $$file"; $(GO) tool pprof -top -nodecount 40 $$file 2>/dev/null; done

.PHONY: generate
generate: $(gen) $(proto)/proto ## deep copies and CRD manifests from tenancy/v1alpha1, messages from xds/ask
	@mkdir -p deploy/crds
	$(gen) object paths=./tenancy/v1alpha1/...
	$(gen) crd paths=./tenancy/v1alpha1/... output:crd:dir=deploy/crds
	$(proto)/proto . xds/ask/ask.proto $(proto)/protoc-gen-go $(proto)/protoc-gen-go-grpc

.PHONY: demo
demo: build ## a mesh of two tenants on this machine (ONCE=1 ends by itself)
	@$(GO) build -trimpath -o bin/demo ./cmd/demo
	@$(MAKE) --no-print-directory envoy || echo "going on without Envoy"
	@ENVOY='$(abspath $(ENVOY))' bin/demo $(if $(filter-out 0,$(ONCE)),--once)

.PHONY: envoy
envoy: ## fetch the pinned Envoy into .cache (ENVOY=/path uses another)
	@[ -x '$(ENVOY)' ] || [ '$(origin ENVOY)' != file ] || .tools/fetch-envoy '$(ENVOY_VERSION)' '$(patsubst %/,%,$(dir $(ENVOY)))'
	@[ -x '$(ENVOY)' ] || { echo "no Envoy at $(ENVOY)"; exit 1; }

.PHONY: kubernetes
kubernetes: ## build kube-apiserver and etcd into .cache (minutes the first time)
	@[ '$(origin KUBEBUILDER_ASSETS)' != file ] || GO='$(GO)' .tools/build-kubernetes '$(KUBEBUILDER_ASSETS)'
	@[ -x '$(KUBEBUILDER_ASSETS)/kube-apiserver' ] && [ -x '$(KUBEBUILDER_ASSETS)/etcd' ] || \
		{ echo "no kube-apiserver and etcd in $(KUBEBUILDER_ASSETS)"; exit 1; }

.PHONY: helm
helm: ## build helm into .cache (minutes the first time)
	@[ '$(origin HELM)' != file ] || GO='$(GO)' .tools/build-helm '$(patsubst %/,%,$(dir $(HELM)))'
	@[ -x '$(HELM)' ] || { echo "no helm at $(HELM)"; exit 1; }

.PHONY: manifests
manifests: helm ## deploy/base/bailiwick.yaml from the chart
	'$(HELM)' template bailiwick deploy/chart --namespace bailiwick-system --include-crds --kube-version 1.36.0 > deploy/base/bailiwick.yaml

.PHONY: fmt
fmt: $(lint) ## format all Go code
	$(lint) fmt ./...

.PHONY: clean
clean: ## remove what was built; what was fetched stays
	rm -rf bin .cache/tools .cache/proto

$(proto)/proto:
	@mkdir -p $(proto)
	cd .tools/proto && CGO_ENABLED=0 $(GO) build -trimpath -o ../../$(proto)/ \
		. google.golang.org/protobuf/cmd/protoc-gen-go google.golang.org/grpc/cmd/protoc-gen-go-grpc

# Minutes when nothing is cached, therefore kept by the checksum of their module.
$(lint) $(gen): $(tools)/built
$(tools)/built:
	@mkdir -p $(tools)
	cd .tools && CGO_ENABLED=0 $(GO) build -trimpath -o ../$(tools)/ \
		github.com/golangci/golangci-lint/v2/cmd/golangci-lint sigs.k8s.io/controller-tools/cmd/controller-gen
	@find .cache/tools -mindepth 1 -maxdepth 1 ! -name '$(notdir $(tools))' -exec rm -r {} +
	@touch $@
