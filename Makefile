# Each target is what CI runs, or more; .ci/run has the commands.
.PHONY: help demo test race lint bench kafka mutations ci

help:  ## list the targets
	@sed -n 's/^\([a-z]*\): *## /\1\t/p' Makefile
demo:  ## see what Tidemark does; needs only Go
	go run ./cmd/tidemark demo
test:  ## everything that needs only Go
	@.ci/run test
race:  ## what is concurrent, under the race detector
	@.ci/run race
lint:  ## format, modules, vet, staticcheck
	@.ci/run format modules vet lint
bench: ## whether the benchmarks work; their figures here mean nothing
	@.ci/run bench bench-smoke
kafka: ## the tests against a real Kafka; needs a JDK and Maven
	@.ci/run kafka
mutations: ## whether the simulation sees every way in which the core can be broken; CI runs a third
	TIDEMARK_TEST_MUTATIONS=1 go test -count=1 -timeout 30m -run TestMutations ./reorder
ci:    ## all that CI runs
	@.ci/run
