# What one does with ollama-gateway. `make` alone lists it.

PREFIX   ?= /usr/local
BACKENDS ?= localhost:11434
OPTIONS  ?=
PROGRAMS := $(CURDIR)/.build/release
PYTEST := BIN=$(PROGRAMS) PYTHONDONTWRITEBYTECODE=1 .venv/bin/python -m pytest -q -p no:cacheprovider
SWIFT_SOURCES := Package.swift Sources Tests Benchmarks

.PHONY: help deps deps-test deps-bench build test test-monitoring test-browser lint format bench demo run install clean

help: ## list these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-16s %s\n", $$1, $$2 }' Makefile

deps: ## install what a build needs (Debian packages; asks for sudo if it must)
	@Scripts/deps build

deps-test: deps ## install what the tests need besides (Prometheus, Chromium; Python packages go to .venv)
	@Scripts/deps test

deps-bench: deps ## install what the benchmarks need besides (wrk, nginx, valgrind)
	@Scripts/deps bench

build: deps ## build the programs for release, into .build/release
	swift build -c release --static-swift-stdlib

test: deps-test ## run all tests: of the parts, and of the programs on live sockets
	swift test --no-parallel  # one loop serves them all: together they would hold each other up
	$(MAKE) --no-print-directory build
	$(PYTEST) Tests/EndToEnd

test-monitoring: deps-test build ## test metrics, alerts and dashboard with a real Prometheus
	$(PYTEST) Tests/Monitoring

test-browser: deps-test build ## test the page in a real browser; screenshots go to screenshots/
	$(PYTEST) Tests/Browser

lint: deps ## check format, import boundaries, and that nothing warns
	swift format lint --strict --recursive $(SWIFT_SOURCES)
	Scripts/check-imports
	swift build --build-tests

format: ## format all Swift code in place
	swift format --in-place --recursive $(SWIFT_SOURCES)

bench: deps-bench build ## measure beside nginx and write Benchmarks/RESULTS.md
	Benchmarks/run

demo: build ## show it: two simulated boxes, the gateway, a request (CHECK=1: then stop)
	@Scripts/deps demo
	@CHECK=$(CHECK) PORT=$(PORT) Scripts/demo $(PROGRAMS)

run: build ## serve in front of real boxes: make run BACKENDS=host:11434,other:11434 [OPTIONS='--port 80']
	exec $(PROGRAMS)/ollama-gateway --backends '$(BACKENDS)' $(OPTIONS)

install: ## install ollama-gateway into PREFIX (/usr/local), under DESTDIR if given
	@test -x $(PROGRAMS)/ollama-gateway || $(MAKE) --no-print-directory build  # sudo often does not find Swift
	install -D -m 755 $(PROGRAMS)/ollama-gateway $(DESTDIR)$(PREFIX)/bin/ollama-gateway

clean: ## remove all that was built or fetched here
	rm -rf .build .venv
