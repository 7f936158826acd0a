"""What one of several gloo processes does in a test: ``python -m tests.ranks WHAT FOLDER CASE ...``.

Takes fairseq's flags of ``tests.commands.run_ranks``; writes ``FOLDER/CASE.RANK.pt``.
"""

import argparse
from pathlib import Path

import torch
import torch.distributed as dist

from tests import recorded, recorded_translation
from trime_fairseq.memory import Visibility, memory_lse, start_gather


def published(folder, cases, rank):
    for name in cases:
        torch.save(recorded.play(name, rank), folder / f"{name}.{rank}.pt")


def published_translation(folder, cases, rank):
    for name in cases:
        torch.save(recorded_translation.play(name, rank), folder / f"{name}.{rank}.pt")


def idle_translation(folder, cases, rank):
    """Rank 1 has no batch left."""
    for name in cases:
        model, sample = recorded_translation.model_and_sample(name)
        if rank == 1:
            model.decoder.features = model.decoder.features[:1, :1].detach().requires_grad_()
            sample = recorded_translation.make_sample(sample["target"][:1, :1] * 0 + 1, nsentences=0)
        criterion = recorded_translation.make_criterion(**recorded_translation.settings_of(name)).train()
        loss, sample_size, log = criterion(model, sample)
        loss.backward()
        found = {"loss": loss.detach(), "sample_size": sample_size, "ntokens": log["ntokens"]}
        found["grad_x"] = model.decoder.features.grad
        found["grad_weight"] = model.decoder.output_projection.weight.grad
        torch.save(found, folder / f"{name}.{rank}.pt")


def shared_gradient(folder, cases, rank):
    """The gradient of all ranks' losses in this rank's representations: see test_gather.py."""
    for name in cases:
        problem = torch.load(folder / f"{name}.pt")
        own, tokens = problem["parts"][rank].clone().requires_grad_(), problem["tokens"][rank]
        counts = tuple(len(part) for part in problem["parts"])
        gathered = start_gather(own, tokens, counts, rank, share_gradient=name == "shared").wait()
        visibility = Visibility.consecutive(counts[rank], (counts[rank],), sum(counts[:rank]))
        lse = memory_lse(
            own, gathered.keys, tokens, gathered.tokens, visibility, 0.5, key_grad=gathered.key_grad
        )
        sum(part[part.isfinite()].sum() for part in lse).backward()
        torch.save({"grad": own.grad, "tokens": gathered.tokens}, folder / f"{name}.{rank}.pt")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("what")
    parser.add_argument("folder", type=Path)
    parser.add_argument("cases", nargs="+")
    parser.add_argument("--distributed-world-size", type=int)
    parser.add_argument("--distributed-rank", type=int)
    parser.add_argument("--distributed-init-method")
    parser.add_argument("--distributed-backend")
    parser.add_argument("--distributed-no-spawn", action="store_true")
    args = parser.parse_args()
    dist.init_process_group(
        args.distributed_backend,
        init_method=args.distributed_init_method,
        world_size=args.distributed_world_size,
        rank=args.distributed_rank,
    )
    globals()[args.what](args.folder, args.cases, args.distributed_rank)
    dist.barrier()


if __name__ == "__main__":
    main()
