"""The package's shape annotations are executed in every test: a wrong shape is a failed test."""

from jaxtyping import install_import_hook

# Before anything imports the package: the hook rewrites modules while they are imported.
install_import_hook("transnormer_edu", "beartype.beartype")
