"""The memory room where there is no fairseq: a training step of the TRIME loss in plain PyTorch."""

import subprocess
import sys

from tests.commands import ROOT, environment

STEP = """
import sys

sys.modules["fairseq"] = None  # import fairseq raises ImportError

import torch
from trime_fairseq.memory import (
    Visibility, memory_lse, plain_token_scores, similarity_scale, trime_log_prob
)

torch.manual_seed(1)
tokens = torch.randint(30, (4, 33))
source, target = tokens[:, :-1], tokens[:, 1:].flatten()
visibility = Visibility.own_segment(4, 32)


def step(impl):
    torch.manual_seed(2)
    embedding, recurrent = torch.nn.Embedding(30, 16), torch.nn.GRU(16, 16, batch_first=True)
    parameters = [*embedding.parameters(), *recurrent.parameters()]
    optimizer = torch.optim.SGD(parameters, lr=0.1)
    hidden = recurrent(embedding(source))[0].flatten(0, 1)
    token_lse, target_logit = plain_token_scores(hidden @ embedding.weight.t(), target)
    lses = memory_lse(hidden, hidden, target, target, visibility, similarity_scale(16), impl=impl)
    loss = -trime_log_prob(token_lse, target_logit, *lses).mean()
    loss.backward()
    optimizer.step()
    return loss.detach(), [parameter.grad for parameter in parameters], parameters


chunked, naive = step("auto"), step("naive")
torch.testing.assert_close(chunked, naive)
assert all(gradient.abs().sum() > 0 for gradient in chunked[1])
loaded = {name.split(".")[0] for name, module in sys.modules.items() if module is not None}
assert not loaded & {"fairseq", "fairseq_cli", "faiss", "hydra"}
"""


def test_training_step():
    done = subprocess.run(
        [sys.executable, "-c", STEP],
        env=environment(cpu=True),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-3000:]
