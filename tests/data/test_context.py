import collections

import numpy as np
import pytest

from seggpt_jax import canvas
from seggpt_jax.data.augment import View
from seggpt_jax.data.context import Context, ContextSettings, NothingToAsk
from seggpt_jax.data.masking import Masking
from seggpt_jax.data.sample import CATEGORY, IGNORE, INSTANCE, Sample

PLAIN = View(jitter_prob=0.0)


def make_context(view=PLAIN, size=(32, 32), patch=16, masking=None, **settings):
    masking = masking or Masking()
    settings = ContextSettings(**settings)
    return Context(settings, view, masking=masking, size=size, patch=patch)


class Squares:
    """Image k is flat in the colour (k, k, k): pixels tell their record. It shows class
    1 + k % 3 on the left and class 4 on the right, an ignored strip between them."""

    name = "squares"
    class_names = {c: str(c) for c in (1, 2, 3, 4)}

    def __init__(self, count=9, kind=CATEGORY, same_image_only=False):
        self.count, self.kind, self.same_image_only = count, kind, same_image_only
        self.reads: list[int] = []
        self.by_class = {
            c: [k for k in range(count) if 1 + k % 3 == c] for c in (1, 2, 3)
        }
        self.by_class[4] = list(range(count))

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        self.reads.append(index)
        segments = np.zeros((40, 60), np.int32)
        segments[5:35, 5:27], segments[5:35, 33:55] = 1 + index % 3, 4
        segments[5:35, 27:33] = IGNORE
        image = np.full((40, 60, 3), index, np.uint8)
        return Sample(image, segments, self.kind, (1 + index % 3, 4))

    def indices_of(self, task):
        raise NotImplementedError  # a pair needs the families only


def records(pair) -> tuple[set, set]:
    """The records that the prompt and the query half show."""
    halves = canvas.split(pair["images"])
    return tuple(set(np.unique(half).tolist()) for half in halves)


def colors_of(target) -> set:
    return set(map(tuple, target.reshape(-1, 3).tolist())) - {(0, 0, 0)}


def test_element_is_as_documented():
    pair = make_context(View(), (32, 48))(Squares(), 4, np.random.default_rng(0))
    shapes = {k: (v.shape, v.dtype.name) for k, v in pair.items()}
    assert shapes == {
        "images": ((64, 48, 3), "uint8"),
        "targets": ((64, 48, 3), "uint8"),
        "foreground": ((64, 48), "bool"),
        "valid": ((64, 48), "bool"),
        "background": ((3,), "uint8"),
        "hidden": ((4, 3), "bool"),
        "kind": ((), "int32"),
        "record": ((), "int64"),
        "labels": ((10,), "int32"),
    }
    assert pair["record"] == 4 and pair["kind"] == CATEGORY
    asked = pair["labels"][pair["labels"] > 0]
    assert 1 <= len(asked) == len(colors_of(pair["targets"])) and {*asked} <= {2, 4}


@pytest.mark.parametrize("mix_prob", [0.0, 1.0])
def test_pairs_share_colours_and_leave_ignored_pixels_black(mix_prob):
    context = make_context(mix_prob=mix_prob)
    source = Squares()
    rng = np.random.default_rng(1)
    maps = set()
    for k in range(100):
        pair = context(source, k % 9, rng)
        prompt, query = (colors_of(t) for t in canvas.split(pair["targets"]))
        assert prompt & query  # the view of both shows a label that is asked for
        assert query <= prompt
        np.testing.assert_array_equal(pair["foreground"], pair["targets"].any(-1))
        assert not (pair["foreground"] & ~pair["valid"]).any()
        assert tuple(pair["background"]) not in prompt | {(0, 0, 0)}
        maps.add(frozenset(prompt))
    assert len(maps) == 100


def test_ignored_pixels_are_invalid():
    view = View(crop_scale=(1.0, 1.0), crop_ratio=(1.5, 1.5))
    context = make_context(view, (40, 60), patch=20, mix_prob=0.0)
    pair = context(Squares(), 0, np.random.default_rng(0))
    ignored = Squares()[0].segments == IGNORE  # symmetric: flips do not matter
    np.testing.assert_array_equal(~pair["valid"], np.concatenate([ignored, ignored]))


def test_same_image_as_often_as_asked_and_partners_share_a_class():
    source, context = Squares(), make_context(mix_prob=0.0)
    rng = np.random.default_rng(2)
    partners = collections.Counter()
    for _ in range(600):
        source.reads.clear()
        prompt, query = records(context(source, 0, rng))
        assert query == {0} and source.reads == [0, *(prompt - {0})]  # decoded once
        partners[prompt.pop()] += 1
    assert abs(partners[0] / 600 - 0.5) < 0.07  # three standard deviations
    # Through class 1 come records 3 and 6, through class 4 all the others.
    total = sum(n for k, n in partners.items() if k)
    expected = {k: 1 / 16 + (1 / 4 if k in (3, 6) else 0) for k in range(1, 9)}
    for k, share in expected.items():
        assert abs(partners[k] / total - share) < 0.1


@pytest.mark.parametrize(
    "source", [Squares(kind=INSTANCE), Squares(same_image_only=True)]
)
def test_instances_and_regions_are_always_their_own_prompt(source):
    context = make_context(same_image=0.0, mix_prob=1.0)
    rng = np.random.default_rng(3)
    for k in range(30):
        pair = context(source, k % 9, rng)
        assert records(pair) == ({k % 9}, {k % 9})
        assert pair["kind"] == source.kind


def test_two_views_of_one_image_are_drawn_apart():
    """A prompt that is the query itself could be copied (paper, section 1.2)."""
    crops = View((0.3, 0.5), flip=0.0, jitter_prob=0.0)
    colours = View((1.0, 1.0), (1.0, 1.0), flip=0.0, jitter_prob=1.0)
    source, rng, places, means = Ramps(9), np.random.default_rng(9), [], []
    for k in range(40):
        pair = make_context(crops, same_image=1.0)(source, k % 9, rng)
        prompt, query = canvas.split(pair["images"])
        assert records_of(prompt) == records_of(query) == {k % 9}
        places.append((prompt[..., 0] != query[..., 0]).any())
        # The targets follow their own images: class 4 is the right half.
        for image, target in zip(
            (prompt, query), canvas.split(pair["targets"]), strict=True
        ):
            left = image[..., 0] < 4 * 31
            assert not colors_of(target[left]) & colors_of(target[image[..., 0] > 132])
        jittered = make_context(colours, same_image=1.0)(source, k % 9, rng)
        prompt, query = canvas.split(jittered["images"])
        means.append(abs(prompt.mean() - query.mean()) > 1)
    assert np.mean(places) > 0.9 and np.mean(means) > 0.7


def records_of(half) -> set[int]:
    """The records that a half shows, by the blue of `Ramps`."""
    return set(np.unique(half[..., 2]).tolist())


def test_absent_prompts_ask_for_what_the_query_does_not_show():
    context = make_context(same_image=0.0, mix_prob=0.0, absent_prob=0.5)
    source, rng, absent = Squares(), np.random.default_rng(6), 0
    for _ in range(400):
        pair = context(source, 0, rng)  # shows classes 1 and 4
        asked = set(pair["labels"].tolist()) - {0}
        prompt, query = map(colors_of, canvas.split(pair["targets"]))
        assert prompt
        if not query:
            absent += 1
            assert len(asked) == 1 and asked <= {2, 3}
    assert abs(absent / 400 - 0.5) < 0.08  # three standard deviations


def test_absent_prompts_stay_within_a_family_of_classes():
    source, families = Squares(), {"a": (1, 4), "b": (2, 3)}
    source.families = families
    context = make_context(same_image=0.0, mix_prob=0.0, absent_prob=1.0)
    for seed in range(30):  # record 0 shows all of its family, record 1 half of both
        rng = np.random.default_rng(seed)
        assert context(source, 0, rng)["foreground"][32:].any()
        asked = set(context(source, 1, rng)["labels"].tolist()) - {0}
        assert asked in ({1}, {3})


class OneClassEach(Squares):
    """Image k as two records, 2k of its class on the left and 2k + 1 of class 4 on the
    right: the other class is background. told: by `Sample.beside`, or by `origins`."""

    def __init__(self, told, count=9):
        super().__init__(count)
        self.told = told
        if told == "origins":
            self.origins = np.arange(2 * count) // 2
        one = {c: [2 * k for k in members] for c, members in self.by_class.items()}
        self.by_class = one | {4: [2 * k + 1 for k in range(count)]}

    def __len__(self):
        return 2 * self.count

    def __getitem__(self, index):
        sample = super().__getitem__(index // 2)
        own, other = sample.classes[:: -1 if index % 2 else 1]
        segments = np.where(sample.segments == other, 0, sample.segments)
        beside = (other,) if self.told == "beside" else ()
        return Sample(sample.image, segments, CATEGORY, (own,), beside)


@pytest.mark.parametrize("told", ["beside", "origins"])
def test_absent_prompts_never_ask_for_what_another_record_of_the_image_shows(told):
    context = make_context(same_image=0.0, mix_prob=0.0, absent_prob=1.0)
    source, rng = OneClassEach(told), np.random.default_rng(0)
    asked = {int(context(source, 0, rng)["labels"][0]) for _ in range(60)}
    assert asked == {2, 3}  # image 0 shows 1, and 4 in its other record


def test_partners_of_one_class_come_as_often():
    context = make_context(same_image=0.0, mix_prob=0.0)
    source, rng = Ramps(15), np.random.default_rng(7)
    found = [context(source, 3, rng)["images"][0, 0, 2] for _ in range(400)]
    counts = np.bincount(found, minlength=15)
    # 0, 6, 9 and 12 share its class: four standard deviations of a share.
    np.testing.assert_allclose(counts[[0, 6, 9, 12]] / 400, 1 / 4, atol=0.09)


def test_the_only_image_of_a_class_is_its_own_prompt():
    context = make_context(same_image=0.0, mix_prob=0.0)
    pair = context(Squares(count=1), 0, np.random.default_rng(0))
    assert records(pair) == ({0}, {0})


def test_mix_context_stitches_several_images_of_one_class():
    context = make_context(same_image=0.0, mix_prob=1.0, mix_grid=(2, 3))
    source, rng = Squares(30), np.random.default_rng(4)
    shown = []
    for k in range(100):
        source.reads.clear()
        prompt, query = records(context(source, k % 30, rng))
        assert k % 30 in query
        assert len(source.reads) <= 1 + 6 + 5
        shown.append(len(prompt))
    # The crops and the picks of one image twice leave fewer than the six cells.
    assert 1.5 < np.mean(shown) < 4 and max(shown) >= 4


class Ramps(Squares):
    """Red says where a pixel is from left to right, blue of which record it is. Of the
    classes that a record shows only one is known to have other records."""

    def __init__(self, count):
        super().__init__(count)
        del self.by_class[4]

    def __getitem__(self, index):
        sample = super().__getitem__(index)
        image = np.zeros((64, 64, 3), np.uint8)
        image[..., 0], image[..., 2] = np.arange(64) * 4, index
        segments = np.kron([[1 + index % 3, 4]], np.ones((64, 32))).astype(np.int32)
        return Sample(image, segments, CATEGORY, sample.classes)


def test_cells_of_a_mix_share_the_class_and_are_cropped_at_one_scale():
    view = View((0.25, 0.25), (1.0, 1.0), flip=0.0, jitter_prob=0.0)
    context = make_context(view, same_image=0.0, mix_prob=1.0, mix_grid=(1, 2))
    source, rng, edges = Ramps(30), np.random.default_rng(8), set()
    for k in range(60):
        for half in canvas.split(context(source, k % 30, rng)["images"]):
            shown = half[16].astype(int)
            assert {*(shown[:, 2] % 3)} == {k % 3}
            # Half a record, 32 pixels, in a cell of 16, which the crop doubles.
            steps = np.diff(shown[:, 0])
            assert 3 <= np.median(steps) <= 5
            edges |= {*np.flatnonzero(np.diff(shown[:, 2])).tolist()}
    assert len(edges) > 8  # they lie anywhere, since the grid is cropped


def test_the_query_is_in_any_cell_of_its_mix():
    view = View((1.0, 1.0), (1.0, 1.0), flip=0.0, jitter_prob=0.0)
    context = make_context(view, same_image=0.0, mix_prob=1.0, mix_grid=(1, 2))
    source, rng, left = Ramps(60), np.random.default_rng(10), []
    for k in range(60):
        query = canvas.split(context(source, k, rng)["images"])[1][16, :, 2]
        if query[0] != query[-1]:  # by chance the same image twice
            assert k in (query[0], query[-1])
            left.append(query[0] == k)
    assert 0.25 < np.mean(left) < 0.75  # four standard deviations


def test_small_labels_fall_back_to_whole_images():
    """The label is a corner that crops of at most 40 % of the area rarely keep."""

    class Corner(Squares):
        def __getitem__(self, index):
            sample = super().__getitem__(index)
            segments = np.zeros_like(sample.segments)
            segments[:3, :3] = 4
            return Sample(sample.image, segments, CATEGORY, (4,))

    view = View(crop_scale=(0.3, 0.4), jitter_prob=0.0)
    rng = np.random.default_rng(5)
    for same_image in (0.0, 1.0):
        context = make_context(view, tries=1, same_image=same_image, mix_prob=0.0)
        for k in range(40):
            prompt, query = canvas.split(
                context(Corner(), k % 9, rng)["foreground"][..., None]
            )
            assert prompt.any() and query.any()


def test_a_partner_without_the_label_falls_back_to_the_same_image():
    class Wrong(Squares):
        """`by_class` promises classes that no image has, each has one of its own."""

        def __getitem__(self, index):
            sample = super().__getitem__(index)
            segments = np.full_like(sample.segments, 10 + index)
            return Sample(sample.image, segments, CATEGORY, (4, 10 + index))

    for k in range(9):
        context = make_context(same_image=0.0, mix_prob=0.0)
        pair = context(Wrong(), k, np.random.default_rng(k))
        assert records(pair) == ({k}, {k}) and pair["foreground"].all()
        context = make_context(same_image=0.0, mix_prob=1.0)
        prompt, query = records(context(Wrong(), k, np.random.default_rng(k)))
        assert prompt & query


def test_a_record_without_labels_is_refused():
    class Empty(Squares):
        def __getitem__(self, index):
            sample = super().__getitem__(index)
            return Sample(sample.image, sample.segments * 0, CATEGORY, ())

    class Speck(Squares):
        """One pixel that is lost when the image shrinks."""

        def __getitem__(self, index):
            sample = super().__getitem__(index)
            segments = np.zeros((400, 600), np.int32)
            segments[0, 0] = 4
            image = np.zeros((400, 600, 3), np.uint8)
            return Sample(image, segments, sample.kind, (4,))

    for source, message in ((Empty(), "no labelled pixel"), (Speck(), "below one")):
        with pytest.raises(NothingToAsk, match=r"squares\[3\].*" + message):
            make_context()(source, 3, np.random.default_rng(0))


def test_the_same_generator_gives_the_same_element():
    context = make_context(View(), masking=Masking(half_prob=0.3))
    for seed in range(20):
        first, again = (
            context(Squares(), seed % 9, np.random.default_rng(seed)) for _ in range(2)
        )
        for name in first:
            np.testing.assert_array_equal(first[name], again[name], name)


@pytest.mark.parametrize("same_image", [0.0, 1.0])
@pytest.mark.parametrize("more", [{}, {"mix_prob": 1.0}])
def test_several_prompts_of_a_query_ask_for_the_same(same_image, more):
    one = make_context(**{"same_image": same_image, "mix_prob": 0.0, **more})
    several = make_context(
        **{"same_image": same_image, "mix_prob": 0.0, **more}, prompts=4
    )
    other_images = set()
    for seed in range(30):
        alone = one(Squares(), seed % 9, np.random.default_rng(seed))
        pairs = several(Squares(), seed % 9, np.random.default_rng(seed))
        for name, values in pairs.items():
            assert len(values) == 4
            np.testing.assert_array_equal(values[0], alone[name], name)
        query = [canvas.split(x)[1] for x in pairs["targets"]]
        shown = [canvas.split(x)[1] for x in pairs["images"]]
        for k in range(1, 4):
            np.testing.assert_array_equal(query[k], query[0])
            np.testing.assert_array_equal(shown[k], shown[0])
            np.testing.assert_array_equal(pairs["hidden"][k], pairs["hidden"][0])
            prompt = canvas.split(pairs["targets"][k])[0]
            # Its colours are the first prompt's, of which one is in the query.
            first = canvas.split(pairs["targets"][0])[0]
            assert colors_of(prompt) & colors_of(query[0])
            assert colors_of(prompt) <= colors_of(first)
            np.testing.assert_array_equal(
                pairs["foreground"][k], pairs["targets"][k].any(-1)
            )
            assert not (pairs["foreground"][k] & ~pairs["valid"][k]).any()
            found = records({"images": pairs["images"][k]})[0]
            # Squares are flat: a jitterless view shows its record's number and black.
            assert not same_image or found <= {seed % 9, 0}
            assert same_image or found - {0} != {seed % 9}
            other_images |= found - {seed % 9}
        assert len({x.tobytes() for x in pairs["targets"]}) > 1  # views of their own
    assert (len(other_images) > 5) == (same_image == 0)


def test_a_share_of_the_queries_has_one_prompt_only():
    how = {"same_image": 0.5, "mix_prob": 0.0, "prompts": 3}
    context, several = make_context(**how, one_prompt=0.4), make_context(**how)
    alike = 0
    for seed in range(200):
        rows, first = (
            make(Squares(), seed % 9, np.random.default_rng(seed))
            for make in (context, several)
        )
        equal = all((x == x[:1]).all() for x in rows.values())
        alike += equal
        for name, values in rows.items():
            assert values.shape == first[name].shape
            np.testing.assert_array_equal(values[0], first[name][0], name)
    assert 60 < alike < 100  # 80 are expected, the standard deviation is 7


def test_further_prompts_of_an_absent_label_never_show_the_query_what_it_asks():
    context = make_context(same_image=0.0, mix_prob=0.0, absent_prob=1.0, prompts=3)
    for seed in range(30):
        pairs = context(Squares(), seed % 9, np.random.default_rng(seed))
        for target in pairs["targets"]:
            prompt, query = (colors_of(half) for half in canvas.split(target))
            assert prompt and not query


@pytest.mark.parametrize(
    "setting, value",
    [
        ("prompts", 0),
        ("prompts", 65),
        ("same_image", 1.5),
        ("one_prompt", -0.1),
        ("absent_prob", 2.0),
        ("mix_prob", -0.5),
        ("mix_grid", (1, 1)),
        ("tries", 0),
        ("min_share", 2.0),
        ("patch", 15),
        ("size", (0, 16)),
    ],
)
def test_settings_out_of_range_are_named(setting, value):
    with pytest.raises(ValueError, match=setting):
        make_context(**{setting: value})
