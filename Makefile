# A thin shell over start.py: every line here is also `python3 start.py NAME`.
PYTHON ?= python3

help:
	@$(PYTHON) start.py help

course book test test-all lab setup:
	@$(PYTHON) start.py $@

.PHONY: help course book test test-all lab setup
