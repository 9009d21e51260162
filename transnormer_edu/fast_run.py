"""A training run that never waits: no number leaves the GPU before the end.

One update is that of train.py, with everything it needs already on the device:

    i        number of the update         a tensor, counted up on the device
    x        batches[i]                   all batches lie there
    rate     rates[i]                     so do all learning rates
    losses[i] = loss(x);  w = AdamW(w, clipped gradient, rate);  i = i + 1

So on a GPU the whole update is recorded once, as a CUDA graph, and played again for each of the
others: about a thousand small kernels without the host between them. On a CPU the same lines run
as they stand.
"""

import gc
import time
from contextlib import nullcontext

import torch
from jaxtyping import Integer
from torch import Tensor, nn

from transnormer_edu.settings import TrainSettings
from transnormer_edu.train import make_optimizer

BEFORE_RECORDING = 3  # updates done one by one: memory and kernels must be there first


class FastRun:
    """All updates of one run, in as many pieces as one likes: run(until), held_out_loss(windows).

    model      trained in place, moved to the settings' device
    batches    (steps, b, n) token ids, what is read at each update; steps as in `settings`, and so
               is the number of equal parts whose gradients are added up (`accumulate`)
    compiled   fuse each block's small operations by torch.compile (worth it on a GPU)
    """

    def __init__(
        self,
        model: nn.Module,
        batches: Integer[Tensor, "steps b n"],
        settings: TrainSettings,
        compiled: bool = False,
    ):
        if len(batches) != settings.steps:
            raise ValueError(f"got {len(batches)} batches, expected {settings.steps}: one a step")
        self.settings, self.device = settings, settings.torch_device()
        self.model = model.to(self.device).train()
        if compiled:
            for block in model.model["layers"]:
                block.compile(dynamic=False)  # blocks differ in sizes: each its own, all fixed
        self.batches = batches.to(self.device)
        rates = [settings.rate_at(step) for step in range(1, settings.steps + 1)]
        self.rates = torch.tensor(rates, device=self.device)
        self.losses = torch.zeros_like(self.rates)
        self.at = torch.zeros(1, dtype=torch.int64, device=self.device)
        self.rate = torch.zeros((), device=self.device)
        self.optimizer = make_optimizer(model, settings)
        self.on_gpu = self.device.type == "cuda"
        for group in self.optimizer.param_groups:
            group.update(lr=self.rate, capturable=self.on_gpu)
        self.done, self.graph = 0, None
        self.stream = torch.cuda.Stream() if self.on_gpu else None

    def run(self, until: int) -> float:
        """Updates up to number `until`; the seconds they took."""
        self._wait()
        begin = time.perf_counter()
        with self._own_stream():
            while self.done < until:
                if self.graph is not None:
                    self.graph.replay()
                else:
                    self._update()
                self.done += 1
                if self.on_gpu and self.done == BEFORE_RECORDING < self.settings.steps:
                    self._record()
        self._wait()
        return time.perf_counter() - begin

    @torch.no_grad()
    def held_out_loss(self, windows: Integer[Tensor, "w n"]) -> float:
        """Mean loss over these windows, nats per token; the first token of each is not foretold."""
        losses = []
        self.model.eval()
        with self._own_stream(), torch.compiler.set_stance("force_eager"), self._precision():
            for part in windows.to(self.device).split(self.settings.batch_size):
                ids = part.long()
                losses.append(self.model(ids, labels=ids) * len(part))
            mean = sum(map(float, losses)) / len(windows)
        self.model.train()
        return mean

    def _update(self) -> None:
        """One update by device tensors alone: nothing here may make the host wait."""
        self.optimizer.zero_grad(set_to_none=True)
        ids = self.batches.index_select(0, self.at)[0].long()
        total = 0
        for part in ids.chunk(self.settings.accumulate):
            with self._precision():
                loss = self.model(part, labels=part) / self.settings.accumulate
            loss.backward()
            total = total + loss.detach()
        if self.settings.clip:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.settings.clip)
        self.rate.copy_(self.rates.index_select(0, self.at)[0])
        self.optimizer.step()
        self.losses.index_copy_(0, self.at, total[None])
        self.at += 1

    def _record(self) -> None:
        """Write down what `_update` launches; recording itself updates nothing."""
        gc.collect()  # what an earlier run recorded holds gigabytes until it is gone
        torch.cuda.empty_cache()
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph, stream=self.stream):
            self._update()

    def _precision(self):
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.settings.uses_bf16())

    def _own_stream(self):
        return torch.cuda.stream(self.stream) if self.on_gpu else nullcontext()

    def _wait(self) -> None:
        if self.on_gpu:
            torch.cuda.synchronize()
