"""Makes plain `pytest --nbval notebooks/` follow the rules of the house: see tests/notebooks."""

pytest_plugins = ["tests.notebooks.strict", "tests.notebooks.replay"]
