"""A user-dir for tests: the package's criterions, which also write down what each rank is given.

``$SPY_FILE.RANK`` gets a line per training batch: update, epoch, segment ids (empty batch: none).
"""

import os

from fairseq.criterions import register_criterion

import trime_fairseq.tasks  # noqa: F401
from trime_fairseq.criterions import SharedMemoryConfig, TrimeExtConfig, TrimeExtLoss, TrimeLongLoss
from trime_fairseq.distributed import rank


class Spy:
    def forward(self, model, sample, reduce=True):
        if self.training:
            ids = [number for number in sample["id"].tolist() if number >= 0]
            with open(f"{os.environ['SPY_FILE']}.{rank()}", "a") as file:
                print(self.task.update_num, self.task.epoch, *ids, file=file)
        return super().forward(model, sample, reduce)


@register_criterion("spy_long", dataclass=SharedMemoryConfig)
class SpyLong(Spy, TrimeLongLoss):
    pass


@register_criterion("spy_ext", dataclass=TrimeExtConfig)
class SpyExt(Spy, TrimeExtLoss):
    pass
