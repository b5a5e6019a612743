# Thin on purpose: the logic is in scripts/.
#
#   make run                   set everything up, deploy a model as `chat`, answer, serve on 127.0.0.1:8000
#   make run MODEL=qwen        a model that speaks Chinese; MODEL=/path takes any GGUF file or model directory
#   make run ONCE=1 PORT=9000  end after the first answer; use this port and no other
#   make test                  every test of every language
#   make reference             writes docs/reference/{openapi.json,http.md,cli.md} and docs/compatibility.md as the code is now

PYTHON ?= python3
MODEL ?= smollm2

.PHONY: run test reference
run:
	@$(PYTHON) scripts/run.py --model '$(MODEL)' $(if $(PORT),--port $(PORT)) $(if $(ONCE),--once)

test:
	@$(PYTHON) scripts/run_tests.py $(if $(ONLY),--only $(ONLY)) -- $(ARGS)

reference:
	@BYZERLLM_UPDATE=1 cargo test --quiet -p byzerllm-server -p byzerllm-cli reference::
	@BYZERLLM_UPDATE=1 $(PYTHON) scripts/run_tests.py --only python -- python/tests/test_compatibility.py
