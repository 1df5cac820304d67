"""Each setting of the data changes what docs/training.md says it changes, on its way
from a config to the pairs of the mixture."""

import numpy as np
import pytest

from seggpt_jax import canvas, colors
from seggpt_jax import train as train_module
from seggpt_jax.data.augment import View
from seggpt_jax.data.sample import CATEGORY, BadRecord, Sample
from seggpt_jax.runs import sharding
from seggpt_jax.training import mixture
from seggpt_jax.training.mixture import build_dataset
from seggpt_jax.training.settings import read_settings
from tests import tiny

SIZE, PATCH = (32, 32), 4
# Nothing random is left: both halves show the whole record, all its labels in their own
# colours, and the query half is hidden.
STILL = {
    "view": {"crop_scale": (1.0, 1.0), "crop_ratio": (1.0, 1.0), "flip": 0.0,
             "jitter_prob": 0.0},
    "context": {"same_image": 1.0, "mix_prob": 0.0},
    "recolor": {"fixed": True, "all_prob": 1.0},
    "masking": {"half_prob": 1.0},
}  # fmt: skip


class Ramps:
    """Red says where a pixel is from left to right, green from top to bottom, and blue
    of which record it is. Class 1 to 4 in the middle, 5 and 6 in two corners;
    1 and 2 are a left and a right part, as are 3 and 4."""

    class_names = {c: str(c) for c in range(1, 7)}
    same_image_only = False

    def __init__(self, name="ramps", count=8, bad=()):
        self.name, self.count, self.bad = name, count, bad
        self.by_class = {c: list(range(c - 1, count, 4)) for c in range(1, 5)}
        self.by_class |= {5: list(range(count)), 6: list(range(count))}

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        if index in self.bad:
            raise BadRecord(f"{self.name}/{index} is torn")
        y, x = np.mgrid[:64, :64] * 4
        image = np.stack([x, y, np.full((64, 64), 20 * index)], -1).astype(np.uint8)
        segments = np.zeros((64, 64), np.int32)
        segments[16:48, 16:48] = 1 + index % 4
        segments[:20, :16], segments[-20:, -16:] = 5, 6
        sides = {1: 2, 2: 1, 3: 4, 4: 3}
        return Sample(image, segments, CATEGORY, (1 + index % 4, 5, 6), sides=sides)


@pytest.fixture
def opened(monkeypatch):
    """What a config with these changes to STILL makes of sources."""

    def build(*sources, groups=None, specs=None, **changed):
        settings = {name: dict(section) for name, section in STILL.items()}
        for name, value in changed.items():
            section, _, last = name.partition("__")
            if last:
                settings.setdefault(section, {})[last] = value
            else:
                settings[name] = value
        groups = groups or {one.name: {one.name: one} for one in sources or [Ramps()]}
        specs = specs or {name: {"weight": 1.0} for name in groups}
        monkeypatch.setattr(mixture, "open_groups", lambda *_: groups)
        stages = {"paint": {"steps": 4, "lr": 0.1}}
        config = read_settings({"sources": specs, "stages": stages} | settings)
        return build_dataset(config, SIZE, PATCH)[1]

    return build


@pytest.fixture
def pairs(opened):
    def take(count=24, **changed):
        dataset = opened(**changed)
        return [dataset[k] for k in range(count)]

    return take


def images(pairs) -> np.ndarray:
    """Prompt and query of each pair, `[n, 2, h, w, 3]`."""
    return np.array([canvas.split(pair["images"]) for pair in pairs]).astype(float)


def records(picture) -> set[int]:
    """Which records a picture shows."""
    return set((picture[..., 2].round() // 20).astype(int).ravel().tolist())


def span(picture) -> np.ndarray:
    """Shares of the width and of the height of a record that a picture shows."""
    return np.array([np.ptp(picture[..., axis]) / 252 for axis in (0, 1)])


def test_without_anything_random_both_halves_are_the_record(pairs):
    for pair, (prompt, query) in zip(still := pairs(), images(still), strict=True):
        np.testing.assert_array_equal(prompt, query)
        assert records(query) == {int(pair["record"])}
        assert (span(query) > 0.95).all()
        assert {*pair["labels"]} == {0, 1 + pair["record"] % 4, 5, 6}


def test_seed_is_of_the_order(pairs):
    first, again, other = (
        [int(pair["record"]) for pair in pairs(seed=seed)] for seed in (0, 0, 1)
    )
    assert first == again != other


def test_flips(pairs):
    still = images(pairs())
    np.testing.assert_array_equal(images(pairs(view__flip=1.0)), still[..., ::-1, :])
    turned = images(pairs(view__vertical_flip=1.0))
    np.testing.assert_array_equal(turned, still[..., ::-1, :, :])


def test_crops(pairs):
    for picture in images(pairs(view__crop_scale=(0.25, 0.25)))[:, 0]:
        np.testing.assert_allclose(span(picture), 0.5, atol=0.05)
    narrow = {"view__crop_scale": (0.3, 0.3), "view__crop_ratio": (0.5, 0.5)}
    for picture in images(pairs(**narrow))[:, 0]:
        width, height = span(picture)
        assert width / height == pytest.approx(0.5, abs=0.06)


def test_jitter_is_of_the_image_only(pairs):
    still, moved = pairs(), pairs(view__jitter_prob=1.0)
    assert all(
        (a != b).any() for a, b in zip(images(still), images(moved), strict=True)
    )
    for a, b in zip(still, moved, strict=True):
        np.testing.assert_array_equal(a["targets"], b["targets"])
    none = pairs(view__jitter_prob=1.0, view__jitter=(0.0,) * 4)
    np.testing.assert_allclose(images(none), images(still), atol=1)


def test_same_image(pairs):
    for prompt, query in images(pairs(context__same_image=0.0)):
        assert records(prompt) != records(query)


@pytest.mark.parametrize("grid, axis", [((1, 2), 0), ((2, 1), 1)])
def test_mix_prob_and_mix_grid(pairs, grid, axis):
    """Cells lie side by side, or one below the other."""
    mixed = {"context__mix_prob": 1.0, "context__mix_grid": grid}
    shown = images(pairs(**mixed, context__same_image=0.0))
    halves = shown.reshape(-1, *shown.shape[2:])
    assert max(len(records(half)) for half in halves) >= 2
    assert (np.ptp(halves[..., 2], axis=1 + axis) == 0).all()


def test_absent_prob(pairs):
    asked = pairs(context__same_image=0.0, context__absent_prob=1.0)
    for prompt, query in (
        canvas.split(pair["foreground"][..., None]) for pair in asked
    ):
        assert prompt.any() and not query.any()


def test_min_share_and_tries(pairs, monkeypatch):
    """No crop shows a label on nearly all its pixels: after so many, all is taken."""
    drawn, window = [], View.window
    monkeypatch.setattr(View, "window", lambda *args: drawn.append(1) or window(*args))
    small = {"view__crop_scale": (0.5, 0.5), "context__min_share": 0.9}
    found = images(pairs(4, **small, context__tries=3))
    assert all((span(half) > 0.95).all() for pair in found for half in pair)
    assert len(drawn) == 4 * 2 * 3


def test_colours(pairs):
    one = pairs(recolor__max_colors=1)
    assert {pair["labels"].shape for pair in one} == {(1,)}
    assert {len(np.unique(pair["targets"][pair["foreground"]], axis=0)) for pair in one
            } == {1}  # fmt: skip
    counts = {int((pair["labels"] > 0).sum()) for pair in pairs(recolor__all_prob=0.0)}
    assert counts == {1, 2, 3}


def palettes(pairs) -> list[np.ndarray]:
    return [np.unique(p["targets"][p["foreground"]], axis=0).astype(int) for p in pairs]


def test_fixed_and_min_distance(pairs):
    own = {tuple(color) for color in colors.spread_palette(6).tolist()}
    assert {tuple(c) for p in palettes(pairs()) for c in p.tolist()} == own
    apart = palettes(pairs(recolor__fixed=False, recolor__min_distance=200.0))
    near = palettes(pairs(recolor__fixed=False, recolor__min_distance=0.0))
    assert len({p.tobytes() for p in apart}) == len(apart)

    def least(palette):
        gaps = abs(palette[:, None] - palette).sum(-1)
        return gaps[~np.eye(len(palette), dtype=bool)].min()

    assert min(map(least, apart)) >= 200 > min(map(least, near))


def test_masking(pairs):
    half = canvas.query_half((16, 8))
    assert all((pair["hidden"] == half).all() for pair in pairs())
    some = pairs(masking__half_prob=0.0, masking__share=0.25)
    assert {float(pair["hidden"].mean()) for pair in some} == {0.25}
    # One block of all 32 patches: 8 x 4, or 4 x 8.
    block = {"masking__block_share": (0.25, 0.25), "masking__share": 0.25}
    for aspect, lengths in ((2.0, (8, 4)), (0.5, (4, 8))):
        blocks = pairs(
            masking__half_prob=0.0, masking__aspect=(aspect, aspect), **block
        )
        for pair in blocks:
            rows, cols = np.nonzero(pair["hidden"])
            assert (np.ptp(rows) + 1, np.ptp(cols) + 1) == lengths


def test_the_model_paints_the_query_half_alone_only_where_that_is_all_that_is_hidden():
    for prob, only in ((0.0, False), (0.1, False), (0.99, False), (1.0, True)):
        config = read_settings(tiny.config(masking__half_prob=prob))
        assert train_module.Whole(config).query_only is only


def test_pairs_have_the_rows_and_columns_of_the_model(tmp_path):
    config = read_settings(
        tiny.config("batch=8", model__canvas=(64, 48), model__patch=16)
    )
    loop = train_module.Loop(config, tmp_path, train_module.Whole(config))
    loop.open_data()
    assert loop.dataset[0]["images"].shape == (64, 48, 3)
    assert loop.dataset[0]["hidden"].shape == (4, 3)


def test_a_view_of_a_source_is_of_that_source_alone(opened):
    """Its pairs are those of a run in which every source has that view."""
    sources = [Ramps("a"), Ramps("b")]
    small = {"crop_scale": (0.25, 0.25)}
    specs = {"a": {"weight": 1.0, "view": small}, "b": {"weight": 1.0}}
    mixed = opened(*sources, specs=specs)
    still, everywhere = (
        opened(*sources),
        opened(*sources, view__crop_scale=(0.25, 0.25)),
    )
    for k in range(16):
        same = everywhere if mixed[k]["source"] == 0 else still
        np.testing.assert_array_equal(mixed[k]["images"], same[k]["images"])
        assert (everywhere[k]["images"] != still[k]["images"]).any()


def test_members_of_a_group_may_have_views(opened):
    groups = {"both": {name: Ramps(name) for name in "ab"}}
    members = {"a": {"view": {"flip": 1.0}}, "b": {}}
    dataset = opened(groups=groups, specs={"both": {"weight": 1.0, "members": members}})
    for k in range(8):
        left, right = dataset[k]["images"][0, 0, 0], dataset[k]["images"][0, -1, 0]
        assert (left > right) == (dataset[k]["source"] == 0)


@pytest.mark.parametrize("power, share", [(1.0, 0.75), (0.0, 0.5)])
def test_group_power(opened, power, share):
    groups = {"both": {"a": Ramps("a", 12), "b": Ramps("b", 4)}}
    dataset = opened(groups=groups, group_power=power)
    assert np.mean([dataset[k]["source"] == 0 for k in range(64)]) == share


def test_weights(opened):
    specs = {"a": {"weight": 3.0}, "b": {"weight": 1.0}}
    dataset = opened(Ramps("a"), Ramps("b"), specs=specs)
    assert np.mean([dataset[k]["source"] == 0 for k in range(64)]) == 0.75


def test_fixed_pairs(opened):
    dataset = opened(fixed_pairs=3, view__crop_scale=(0.1, 0.9))
    for k in range(9):
        for name, value in dataset[k].items():
            np.testing.assert_array_equal(value, dataset[k % 3][name])
    free = opened(view__crop_scale=(0.1, 0.9))
    assert (free[0]["images"] != free[8]["images"]).any()


def test_bad_share(opened):
    bad = Ramps(bad=(1, 3))
    taken = opened(bad, bad_share=0.25)
    assert not {int(taken[k]["record"]) for k in range(16)} & {1, 3}
    with pytest.raises(ValueError, match="more than 1 of 8 records are bad"):
        stopped = opened(bad, bad_share=0.2)
        [stopped[k] for k in range(16)]


def test_the_loader_and_the_mesh_are_those_of_the_config(tmp_path, monkeypatch):
    loader = {"batch_size": 4, "threads": 3, "workers": 5, "prefetch": 7}
    config = read_settings(
        tiny.config(loader=loader, mesh__fsdp=2, mesh__tensor=2, mesh__data=2)
    )
    loop = train_module.Loop(config, tmp_path, train_module.Whole(config))
    assert dict(loop.mesh.shape) == {"data": 2, "fsdp": 2, "tensor": 2}
    loop.open_data()
    monkeypatch.setattr(train_module, "make_iterator", lambda dataset, **how: how)
    rows = sharding.own_rows(loop.mesh, 4)
    assert loop.batches() == loader | {"rows": rows, "start_step": 0}
