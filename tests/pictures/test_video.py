"""Videos: times, sound, folders and patterns of frames, cameras."""

import functools
import http.server
import itertools
import struct
import sys
import threading
from fractions import Fraction
from types import SimpleNamespace

import av
import numpy as np
import pytest
from PIL import Image

from seggpt_jax.pictures import camera, images, video
from seggpt_jax.pictures.video import Frame
from tests.support.videos import read_sound, read_times, write_clip

TIMES = [0, 0.04, 0.5, 0.51, 1.9]
FRAMES = [np.full((32, 48, 3), 40 * k, np.uint8) for k in range(5)]


def rewrite(path, out, **given):
    """Reads a video and writes its frames, as an overlay is written."""
    sound = given.pop("sound", path)
    with video.writer(out, video.probe(path).fps, sound) as write:
        for frame in video.read_frames(path):
            write(frame)


@pytest.mark.parametrize(
    ("name", "sound"), [("x.mp4", "aac"), ("x.mkv", "aac"), ("x.mov", "pcm_s16le")]
)
def test_times_and_sound_are_kept(tmp_path, name, sound):
    """Of frames at uneven times; the packets of the sound are the same bytes."""
    path, out = tmp_path / name, tmp_path / "out.mp4"
    write_clip(path, FRAMES, TIMES, sound)
    assert [frame.time for frame in video.read_frames(path)] == TIMES
    rewrite(path, out)
    np.testing.assert_allclose(read_times(out), TIMES, atol=1e-5)
    assert read_sound(path) and read_sound(out) == read_sound(path)
    shades = [frame.image.mean() for frame in video.read_frames(out)]
    np.testing.assert_allclose(shades, [40 * k for k in range(5)], atol=6)


def test_colons_in_names_are_no_protocols(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_clip(tmp_path / "12:30.mp4", FRAMES, TIMES, "aac")
    (tmp_path / "auto:x").mkdir()
    rewrite("12:30.mp4", "auto:x/out.mp4")
    ours, theirs = (tmp_path / name for name in ("auto:x/out.mp4", "12:30.mp4"))
    assert read_sound(ours) == read_sound(theirs)


def test_a_video_without_sound_has_none(tmp_path):
    write_clip(tmp_path / "x.mp4", FRAMES)
    rewrite(tmp_path / "x.mp4", tmp_path / "out.mp4")
    assert read_sound(tmp_path / "out.mp4") == []


def test_sound_that_mp4_does_not_take_is_encoded_anew(tmp_path):
    path, out = tmp_path / "x.avi", tmp_path / "out.mp4"
    even = [k / 5 for k in range(5)]
    write_clip(path, FRAMES, even, "pcm_u8", codec="mpeg4", tick=Fraction(1, 5))
    rewrite(path, out)
    np.testing.assert_allclose(read_times(out), even, atol=1e-5)
    times = [time for time, _ in read_sound(out)]
    assert 1.9 < times[-1] < 2.1  # two seconds, in packets of 64 ms


def test_times_count_from_the_start_of_a_file(tmp_path):
    """A transport stream begins anywhere; frames and sound move alike."""
    path, out = tmp_path / "x.ts", tmp_path / "out.mp4"
    write_clip(path, FRAMES, TIMES, "aac")
    begun = read_sound(path)[0][0]
    assert begun > 0.1
    rewrite(path, out)
    wanted = np.array(read_times(path)) - begun
    np.testing.assert_allclose(read_times(out), wanted, atol=1e-3)
    moved = [round(time - begun, 3) for time, _ in read_sound(path)]
    np.testing.assert_allclose([t for t, _ in read_sound(out)], moved, atol=2e-3)


def test_frames_without_times_or_out_of_order_come_one_by_one(tmp_path):
    for times, wanted in (
        ([None] * 4, [0, 0.2, 0.4, 0.6]),
        ([0, 1, 0.5, 1.5], [0, 1, 1.2, 1.5]),
        ([2, None, 3, 3], [2, 2.2, 3, 3.2]),
    ):
        with video.writer(tmp_path / "x.mp4", Fraction(5)) as write:
            for frame, time in zip(FRAMES, times, strict=False):
                write(Frame(frame, time))
        np.testing.assert_allclose(read_times(tmp_path / "x.mp4"), wanted, atol=1e-5)


def test_a_frame_of_another_size_is_refused_and_nothing_is_left(tmp_path):
    with pytest.raises(ValueError, match=r"out.mp4: frame 1 is 32 x 48, the first o"):
        with video.writer(tmp_path / "out.mp4", Fraction(5)) as write:
            write(Frame(FRAMES[0], 0.0))
            write(Frame(FRAMES[0].swapaxes(0, 1), 0.2))
    assert not list(tmp_path.iterdir())


def test_a_video_is_read_from_an_address(tmp_path):
    write_clip(tmp_path / "x.mp4", FRAMES, TIMES)
    files = functools.partial(QuietFiles, directory=tmp_path)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), files) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        where = f"http://127.0.0.1:{server.server_port}/x.mp4"
        assert [frame.time for frame in video.read_frames(where)] == TIMES
        assert video.probe(where).frames == 5
        with pytest.raises(ValueError, match="y.mp4 is no video: .*404"):
            video.probe(where.replace("x.mp4", "y.mp4"))
        server.shutdown()


class QuietFiles(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.mark.parametrize("name, codec", [("a.mkv", "libx264"), ("a.avi", "mpeg4")])
def test_a_video_that_was_not_copied_whole_is_said(tmp_path, caplog, name, codec):
    """FFmpeg ends such a file as if it were whole, but for mp4."""
    rng = np.random.default_rng(0)
    frames = [rng.integers(0, 256, (48, 64, 3)).astype(np.uint8) for _ in range(30)]
    path = tmp_path / name
    write_clip(path, frames, codec=codec, tick=Fraction(1, 5))
    assert len(list(video.read_frames(path))) == 30 and not caplog.records
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])
    assert 0 < len(list(video.read_frames(path))) < 25
    (said,) = caplog.messages
    assert str(path) in said and "was it copied whole?" in said


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
def test_a_last_frame_that_is_shown_for_long_is_no_cut(tmp_path, caplog, name):
    with av.open(str(tmp_path / name), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv420p"
        stream.codec_context.time_base = tick = Fraction(1, 90_000)
        stream.codec_context.options = {"bf": "0"}  # the last packet is the last frame
        packets = []
        for number in range(10):
            black = np.zeros((48, 64, 3), np.uint8)
            frame = av.VideoFrame.from_ndarray(black, "rgb24")
            frame.pts, frame.time_base = number * 9000, tick
            packets += stream.encode(frame)
        packets += stream.encode()
        packets[-1].duration = 20 * 90_000
        for packet in packets:
            container.mux(packet)
    assert len(list(video.read_frames(tmp_path / name))) == 10 and not caplog.records


def turn(path, matrix):
    """Gives an mp4 file a matrix (a, b, c, d) by which it is shown."""
    a, b, c, d = (one << 16 for one in matrix)
    content = path.read_bytes()
    at = content.index(b"tkhd") + 44  # after its times, its number and its length
    turned = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(content[:at] + turned + content[at + 36 :])


@pytest.mark.parametrize(
    "matrix, shown",
    [
        ((0, 1, -1, 0), lambda x: np.rot90(x, -1)),
        ((-1, 0, 0, -1), lambda x: x[::-1, ::-1]),
        ((0, -1, 1, 0), np.rot90),
        ((-1, 0, 0, 1), lambda x: x[:, ::-1]),  # as front cameras have it
        ((1, 0, 0, -1), lambda x: x[::-1]),
        ((0, 1, 1, 0), lambda x: x.swapaxes(0, 1)),
        ((0, -1, -1, 0), lambda x: x[::-1, ::-1].swapaxes(0, 1)),
    ],
)
def test_frames_are_turned_and_mirrored_as_players_show_them(tmp_path, matrix, shown):
    path = tmp_path / "a.mp4"
    frame = np.zeros((32, 64, 3), np.uint8)
    frame[:16, :16] = 255
    write_clip(path, [frame])
    (stored,) = (each.image for each in video.read_frames(path))
    turn(path, matrix)
    (found,) = (each.image for each in video.read_frames(path))
    np.testing.assert_array_equal(found, shown(stored))


@pytest.mark.parametrize("name", ["a.png", "a.gif"])
def test_what_is_transparent_in_an_animation_is_white(tmp_path, name):
    first, second = (np.zeros((16, 24, 4), np.uint8) for _ in range(2))
    first[4:12, 4:12] = second[4:12, 8:16] = (200, 30, 30, 255)
    pages = [Image.fromarray(page) for page in (first, second)]
    pages[0].save(tmp_path / name, save_all=True, append_images=pages[1:],
                  duration=100, disposal=1 if name == "a.png" else 2)  # fmt: skip
    for frame, page in zip(video.read_frames(tmp_path / name), pages, strict=True):
        np.testing.assert_array_equal(frame.image, images.read_rgb(page))


@pytest.mark.parametrize("lies", [False, True])
def test_pixels_keep_their_shape(tmp_path, lies):
    """Else an overlay of a clip with wide pixels looks squeezed."""
    path, new = tmp_path / "a.mp4", tmp_path / "b.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=5)
        stream.height, stream.width, stream.pix_fmt = 32, 48, "yuv420p"
        stream.codec_context.sample_aspect_ratio = Fraction(4, 3)
        black = np.zeros((32, 48, 3), np.uint8)
        container.mux(stream.encode(av.VideoFrame.from_ndarray(black, "rgb24")))
        container.mux(stream.encode())
    if lies:
        turn(path, (0, 1, -1, 0))
    with video.writer(new, Fraction(5), path) as write:
        for frame in video.read_frames(path):
            write(frame)
    with av.open(str(new)) as container:
        (stream,) = container.streams.video
        assert stream.sample_aspect_ratio == (
            Fraction(3, 4) if lies else Fraction(4, 3)
        )
        assert (stream.height, stream.width) == ((48, 32) if lies else (32, 48))


def test_a_slow_video_is_whole(tmp_path, caplog):
    frames = [np.full((16, 16, 3), 40 * k, np.uint8) for k in range(4)]
    write_clip(tmp_path / "a.mkv", frames, [0, 5, 10, 15])
    assert len(list(video.read_frames(tmp_path / "a.mkv"))) == 4
    assert not caplog.records


def test_sound_with_a_cover_is_no_video(tmp_path):
    path = tmp_path / "song.mp4"
    with av.open(str(path), "w") as container:
        cover = container.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt = 48, 32, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        picture = av.VideoFrame.from_ndarray(FRAMES[1], "rgb24")
        container.mux(cover.encode(picture))
        container.mux(cover.encode())
    with pytest.raises(ValueError, match="song.mp4 is no video: it is sound with a c"):
        video.probe(path)


def test_pictures_are_frames_in_the_order_of_their_numbers(tmp_path):
    for k in (0, 1, 2, 10, 11):
        Image.fromarray(FRAMES[0] + np.uint8(k)).save(tmp_path / f"f{k}.png")
        Image.fromarray(FRAMES[0]).save(tmp_path / f"mask_{k}.bmp")
    (tmp_path / "._f3.png").write_bytes(b"left by a system")
    (tmp_path / "notes.txt").write_text("no picture")
    for pattern in ("f*.png", "f%d.png", "f[0-9]*.png"):
        where = tmp_path / pattern
        frames = list(video.read_frames(where))
        assert [frame.image[0, 0, 0] for frame in frames] == [0, 1, 2, 10, 11]
        assert {frame.time for frame in frames} == {None}
        assert video.probe(where) == (25, 5, True) and video.is_pictures(where)
    assert video.probe(tmp_path).frames == 10  # without the others


@pytest.mark.parametrize(
    ("name", "times"),
    [("x.tif", None), ("x.webp", [0, 0.05, 0.15]), ("x.png", [0, 0.05, 0.15]),
     ("x.gif", [0, 0.05, 0.15])],
)  # fmt: skip
def test_stacks_and_animations_are_videos(tmp_path, name, times):
    """None is its first picture alone."""
    path = tmp_path / name
    pages = [Image.fromarray(frame) for frame in FRAMES[1:4]]
    how = {} if times is None else {"duration": [50, 100, 60]}
    if name == "x.webp":
        how["lossless"] = True
    pages[0].save(path, save_all=True, append_images=pages[1:], **how)
    frames = list(video.read_frames(path))
    for frame, wanted in zip(frames, FRAMES[1:4], strict=True):
        np.testing.assert_array_equal(frame.image, wanted)
    assert [frame.time for frame in frames] == pytest.approx(times or [None] * 3)
    assert video.is_pictures(path) == (times is None)
    assert video.probe(path).frames in (0, 3)


def test_bits_of_pictures_are_followed_and_a_dark_video_is_said(tmp_path, caplog):
    for k in range(3):
        deep = np.full((4, 4), 4095, np.uint16)
        Image.fromarray(deep).save(tmp_path / f"{k}.png")
    bright = list(video.read_frames(tmp_path, bits=12))
    assert {frame.image.max() for frame in bright} == {255} and not caplog.records
    assert next(video.read_frames(tmp_path)).image.max() == 15
    list(video.read_frames(tmp_path))
    assert len(caplog.records) == 2  # once a reading, not once a frame
    assert "look nearly black when read as 16 bits" in caplog.text


def test_what_cannot_be_frames_is_named(tmp_path):
    for name, said in (
        (tmp_path, "has no picture to be a frame; it has nothing"),
        (tmp_path / "*.jpg", "matches no file"),
        (tmp_path / "no/%05d.jpg", "matches no file"),
        ("rtsp://127.0.0.1:9/x", "is no video: Connection refused"),
    ):
        with pytest.raises(ValueError, match=said):
            video.probe(name)
    for name in ("1.jpg", "01.jpg", "2.jpg"):
        Image.fromarray(FRAMES[0]).save(tmp_path / name)
    with pytest.raises(ValueError, match=r"01.jpg and .*/1.jpg would both be 01"):
        video.probe(tmp_path)
    (tmp_path / "01.jpg").write_bytes(b"no picture")
    with pytest.raises(ValueError, match="01.jpg cannot be read"):
        list(video.read_frames(tmp_path / "0*.jpg"))


class Capture:
    """OpenCV's VideoCapture of a camera that gives 100 frames, each when it is let."""

    def __init__(self, number):
        self.number, self.given, self.released = number, 0, False

    def isOpened(self):
        return self.number == 0

    def read(self):
        if self.given == 100:
            return False, None
        self.given += 1
        return True, np.array([[[self.given, 0, 200]]], np.uint8)

    def release(self):
        self.released = True


def test_a_camera_is_read_by_opencv(monkeypatch):
    made = []

    def capture(number):
        made.append(Capture(number))
        return made[-1]

    monkeypatch.setitem(sys.modules, "cv2", SimpleNamespace(VideoCapture=capture))
    frames = list(itertools.islice(camera.read_camera(0), 3))
    assert [frame.image[0, 0].tolist() for frame in frames] == [  # RGB, not BGR
        [200, 0, k] for k in (1, 2, 3)
    ]
    times = [frame.time for frame in frames]
    assert times[0] == 0 and times == sorted(times)
    assert len(list(camera.read_camera(0))) == 100 and made[-1].released
    with pytest.raises(ValueError, match="camera 7 cannot be opened"):
        next(camera.read_camera(7))
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(ValueError, match=r"need OpenCV: pip install .*\[camera\]"):
        next(camera.read_camera(0))


def test_no_frame_is_late():
    """While the caller is busy, the camera goes on; then the newest frame comes."""
    go, gone = threading.Semaphore(0), threading.Semaphore(0)

    def capture():
        for k in range(10):
            go.acquire()
            yield Frame(np.full((1, 1, 3), k, np.uint8), float(k))
            gone.release()  # asked for the next one: this one was taken over

    def let(count):
        for _ in range(count):
            go.release()
        for _ in range(count):
            gone.acquire()

    frames = camera.newest(capture())
    first = threading.Timer(0, let, [1])
    first.start()
    assert next(frames).time == 0
    first.join()
    let(4)
    assert next(frames).time == 4
    let(5)
    assert [frame.time for frame in frames] == [9]


def test_errors_of_a_camera_come_through():
    def broken():
        yield Frame(FRAMES[0], 0.0)
        raise ValueError("unplugged")

    with pytest.raises(ValueError, match="unplugged"):
        list(camera.newest(broken()))
