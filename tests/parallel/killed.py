"""Run by torchrun: a command whose process 1 dies in step 4, when its gradients are there."""

import os
import signal
from itertools import count

from torch.optim.optimizer import register_optimizer_step_pre_hook

from transnormer_edu import job
from transnormer_edu.cli import app

STEPS = count(1)


def die(*_):
    first_life = os.environ["TORCHELASTIC_RESTART_COUNT"] == "0"
    if next(STEPS) == 4 and first_life and not job.is_first():
        os.kill(os.getpid(), signal.SIGKILL)


register_optimizer_step_pre_hook(die)
job.run(app)
