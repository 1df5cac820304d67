"""What the sets of retinal vessels share."""

from collections.abc import Mapping
from pathlib import Path

from seggpt_jax.data.layout import Decoded, Layout, Listing, pair_up, thresholded

VESSEL = {1: "retinal vessel"}


class Vessels(Layout):
    """Base: masks are bright where a vessel is."""

    def listing(
        self, images: Mapping[str, Path], masks: Mapping[str, Path], root: Path
    ) -> Listing:
        return Listing(VESSEL, pair_up(images, masks, root))

    def decode(self, mask: bytes, annotation: str) -> Decoded:
        return thresholded(mask)
