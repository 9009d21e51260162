"""`python -m transnormer_edu` is the command `transnormer-edu`; torchrun starts it so, too."""

from transnormer_edu import job
from transnormer_edu.cli import app

job.run(app)
