"""`python -m transnormer_edu` is the command `transnormer-edu`."""

from transnormer_edu.cli import app

app()
