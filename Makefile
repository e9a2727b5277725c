# All of it is done by tools/quickstart.sh, which also works without make. PYTHON=python3.12 chooses the interpreter.
.PHONY: demo test setup-openmmlab test-openmmlab test-wheel lint api setup

demo test setup-openmmlab test-openmmlab test-wheel lint api setup:
	@bash tools/quickstart.sh $@
