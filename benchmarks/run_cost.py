"""What the paper's whole training run takes with ViT-L, from counted products: tables.

    python -m benchmarks.run_cost
    python -m benchmarks.run_cost --share=0.5 --ema

Nothing here is measured: the share of the peak is stated, and prices are assumptions
to be checked. Evaluations, starts and what a fault costs are not counted. The tables
are in docs/scaling.md.
"""

import argparse
import dataclasses

from benchmarks.rows import parse
from configs import vitl
from seggpt_jax.models.flops import peak_flops, training_flops
from seggpt_jax.models.seggpt import SegGPTConfig
from seggpt_jax.training.settings import read_settings
from seggpt_jax.trees import table

PARAMETERS = 370_723_203  # of ViT-L at 896 x 448 (docs/parity.md)
CANVAS = 896 * 448 * (3 + 3 + 1 + 1)  # bytes of a pair on its way to the devices


@dataclasses.dataclass(frozen=True)
class Cluster:
    """device: as jax names the kind. price: dollars for an hour of a chip, on demand
    (docs/scaling.md says whence)."""

    device: str
    chips: int
    hosts: int
    price: float


# The number in a v5p's name counts cores, two on each chip.
CLUSTERS = {
    "v5e-256": Cluster("TPU v5 lite", 256, 64, 1.20),
    "v5p-64": Cluster("TPU v5", 32, 8, 4.20),
    "8 x H100": Cluster("NVIDIA H100 80GB HBM3", 8, 1, 11.06),
    "64 x H100": Cluster("NVIDIA H100 80GB HBM3", 64, 8, 11.06),
}


@dataclasses.dataclass(frozen=True)
class Run:
    """canvases: in all. batch: of a step. flops: of a canvas, counted."""

    steps: int
    batch: int
    flops: float

    @property
    def total(self) -> float:
        return self.steps * self.batch * self.flops


def run_of(config) -> Run:
    """The training that a config says, as counted products; none of its scores'."""
    settings = read_settings(config)
    model = SegGPTConfig.read(settings.model)
    flops = training_flops(model, settings.masking.query_only)
    return Run(settings.steps, settings.loader.batch_size, flops)


def cost(run: Run, cluster: Cluster, share: float) -> dict[str, float]:
    """Hours and dollars of a run at a share of the peak, seconds of a step, and what
    data a host must make: pairs per second, and bytes of its rows of a batch."""
    peak = peak_flops(cluster.device)
    if peak is None:
        raise ValueError(f"the peak of {cluster.device} is not known")
    seconds = run.total / (share * peak * cluster.chips)
    own = run.batch / cluster.hosts
    return {
        "hours": seconds / 3600,
        "dollars": seconds / 3600 * cluster.chips * cluster.price,
        "step_s": seconds / run.steps,
        "host_pairs_s": own * run.steps / seconds,
        "host_bytes": own * CANVAS,
    }


def checkpoint_bytes(ema: bool) -> int:
    """Of one: parameters, two moments and, if kept, the average, in float32."""
    return PARAMETERS * 4 * (3 + ema)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--share", type=float, default=0.4, help="of the peak in use")
    parser.add_argument("--ema", action="store_true", help="a moving average is kept")
    args = parse(parser)
    config, rows = vitl.get_config(), []
    run = run_of(config)
    for name, cluster in CLUSTERS.items():
        c = cost(run, cluster, args.share)
        rows.append((
            name, cluster.chips, cluster.hosts, f"{c['step_s']:.2f}",
            f"{c['hours']:.1f}", f"{cluster.chips * c['hours']:,.0f}",
            f"{cluster.price:.2f}", f"{c['dollars']:,.0f}",
            f"{c['host_pairs_s']:.0f}", f"{c['host_bytes'] / 1e9:.2f}",
        ))  # fmt: skip
    print(
        f"{run.steps:,} steps of {run.batch:,} canvases of {run.flops:.3g} FLOP: "
        f"{run.total:.3g} FLOP, at {args.share:.0%} of the peak\n"
    )
    print(table(
        ("cluster", "chips", "hosts", "step s", "hours", "chip hours", "$/chip hour",
         "$", "pairs/s of a host", "GB of its rows"), rows
    ))  # fmt: skip
    each = checkpoint_bytes(args.ema)
    made = -(-run.steps // config.save_every)
    print(
        f"\ncheckpoints: {made} are made, one every {config.save_every} steps; "
        f"{config.keep} of {each / 1e9:.2f} GB stay"
    )


if __name__ == "__main__":
    main()
