"""Whether a launcher (torchrun, SLURM) started this process as one of several."""

import os
from collections.abc import Mapping


def cluster_rank(environment: Mapping[str, str] = os.environ) -> int | None:
    """The rank of this process where a launcher started several; None for a process that was started alone."""
    for rank, world in (("RANK", "WORLD_SIZE"), ("SLURM_PROCID", "SLURM_NTASKS")):
        if rank in environment and int(environment.get(world, "1")) > 1:
            return int(environment[rank])
    return None
