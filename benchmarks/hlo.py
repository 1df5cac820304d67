"""The collectives of a compiled program, from its text: how often, how many bytes."""

import dataclasses
import math
import re
from collections.abc import Iterator

_BYTES = {
    "pred": 1, "s8": 1, "u8": 1, "s16": 2, "u16": 2, "bf16": 2, "f16": 2, "s32": 4,
    "u32": 4, "f32": 4, "s64": 8, "u64": 8, "f64": 8, "c64": 8, "c128": 16,
}  # fmt: skip
_ARRAY = re.compile(r"\b([a-z]+\d*)\[([\d,]*)\]")
_HEAD = re.compile(r"^(ENTRY )?%?([\w.\-]+) (?:\(.*\) -> .*)?\{$")
_LINE = re.compile(r"^\s+(?:ROOT )?%?([\w.\-]+) = (.*?)\s([a-z][a-z0-9\-]*)\((.*)$")
_CALLS = re.compile(r"\b(?:calls|body|to_apply)=%?([\w.\-]+)")
_BRANCHES = re.compile(
    r"\b(?:branch_computations=\{([^}]*)\}|(?:true|false)_computation=%?([\w.\-]+))"
)
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"')
_OPERAND = re.compile(r"%([\w.\-]+)")
_CHAIN = re.compile(r"channel_id=(\d+).*chain_id=")
_OP_NAME = re.compile(r'op_name="([^"]*)"')

# Each of a group of g chips sends at least a share (g - 1) / g of the whole array,
# times this factor.
_SENT = {"all-gather": 1, "reduce-scatter": 1, "all-reduce": 2, "all-to-all": 1}
KINDS = (*_SENT, "collective-permute")


@dataclasses.dataclass(frozen=True)
class Collective:
    """One collective operation of a program.

    size: bytes of the whole array, gathered or before it is scattered; of a permute, of
    the part that a chip sends. group: chips that take part together. times: how often a
    run of the program does it. origin: the operation of the source that it is for.
    """

    kind: str
    size: int
    group: int
    times: int
    origin: str
    chain: str = ""

    @property
    def sent(self) -> float:
        """Bytes that one chip sends at least, all times together."""
        if self.kind == "collective-permute":
            return self.size * self.times
        return _SENT[self.kind] * self.size * (1 - 1 / self.group) * self.times


@dataclasses.dataclass(frozen=True)
class _Line:
    name: str
    shape: str
    op: str
    rest: str


def collectives(text: str) -> list[Collective]:
    """Every collective of an optimised module; in a loop, as often as the loop runs.

    Raises ValueError for a loop with a collective whose trip count the compiler does
    not know.
    """
    entry, computations = _parse(text)
    found, chains = [], set[str]()
    for one in _walk(computations, entry, 1):
        if not one.chain or one.chain not in chains:
            found.append(one)
        chains.add(one.chain)
    return found


def _parse(text: str) -> tuple[str, dict[str, list[_Line]]]:
    entry, computations, lines = "", dict[str, list[_Line]](), list[_Line]()
    for raw in text.splitlines():
        if head := _HEAD.match(raw):
            lines = computations.setdefault(head[2], [])
            entry = head[2] if head[1] else entry
        elif line := _LINE.match(raw):
            lines.append(_Line(*line.groups()))
    return entry, computations


def _walk(computations, name: str, times: int) -> Iterator[Collective]:
    lines = computations[name]
    for line in lines:
        kind = line.op.removesuffix("-start")
        if kind in KINDS:
            yield _collective(kind, line, lines, name, times)
            continue
        inner = _CALLS.findall(line.rest)
        for several, one in _BRANCHES.findall(line.rest):
            inner += re.findall(r"[\w.\-]+", several) or [one]
        for other in inner:
            found = list(_walk(computations, other, 1))
            if not found:
                continue
            more = _trips(computations, line) if line.op == "while" else 1
            for each in found:
                yield dataclasses.replace(each, times=each.times * more * times)


def _trips(computations, loop: _Line) -> int:
    """How often a loop runs: as the compiler says, or by its counter, which starts at 0
    and stays below the one constant of the condition."""
    if known := _TRIPS.search(loop.rest):
        return int(known[1])
    condition, body = (
        computations.get(found[1] if found else "", [])
        for found in (
            re.search(rf"{part}=%?([\w.\-]+)", loop.rest)
            for part in ("condition", "body")
        )
    )
    limits = list(_constants(condition).values())
    if len(limits) != 1:
        raise ValueError(f"loop {loop.name} has collectives, and no trip count")
    counters = [line for line in condition if line.op == "get-tuple-element"]
    index = re.search(r"index=(\d+)", counters[0].rest) if counters else None
    return math.ceil(limits[0] / _stride(body, int(index[1]) if index else 0))


def _stride(body: list[_Line], index: int) -> int:
    """The number that an iteration adds to one element of the state; 1 by default."""
    lines, constants = {line.name: line for line in body}, _constants(body)
    state = _OPERAND.findall(body[-1].rest.partition(")")[0]) if body else []
    counter = lines.get(state[index]) if index < len(state) else None
    if counter is None or counter.op != "add":
        return 1
    added = _OPERAND.findall(counter.rest.partition(")")[0])
    return next((constants[name] for name in added if name in constants), 1)


def _constants(lines: list[_Line]) -> dict[str, int]:
    """Whole numbers of a computation, by name."""
    found = ((line, re.match(r"\d+(?=\))", line.rest)) for line in lines)
    return {
        line.name: int(value[0])
        for line, value in found
        if value and line.op == "constant" and line.shape[:5] in ("s32[]", "u32[]")
    }


def _collective(kind: str, line: _Line, lines, where: str, times: int) -> Collective:
    group = _group(line.rest)
    size = _size(line.shape)
    if line.op == "all-gather-start":  # inputs and outputs
        size = size * group // (group + 1)
    if line.op == "collective-permute-start":  # input, output and private arrays
        size = max(_size(part[0]) for part in _ARRAY.finditer(line.shape))
    if kind == "reduce-scatter":
        size *= group
    # TPUs scatter a sum by a fusion of the sum and of taking one's own part.
    if kind == "all-reduce" and where.startswith("all-reduce-scatter"):
        kind = "reduce-scatter"
    origin, chain = _OP_NAME.search(line.rest), _CHAIN.search(line.rest)
    return Collective(
        kind, size, group, times,
        origin[1] if origin else "", chain[1] if chain else "",
    )  # fmt: skip


def _size(shape: str) -> int:
    """Bytes of an array, or of all of a tuple."""
    return sum(
        math.prod(int(n) for n in dims.split(",") if n) * _BYTES.get(kind, 1)
        for kind, dims in _ARRAY.findall(shape)
    )


def _group(rest: str) -> int:
    """How many devices are in one of `replica_groups`, in any of its three forms."""
    if match := re.search(r"replica_groups=mesh\[([^\]]*)\]\s*\{([^}]*)\}", rest):
        sizes = dict(re.findall(r"'(\w+)'=(\d+)", match[1]))
        named = re.findall(r"'(\w+)'(?::\(\d+\)(\d+))?", match[2])
        return math.prod(int(part or sizes[axis]) for axis, part in named)
    if match := re.search(r"replica_groups=\[(\d+),(\d+)\]<=", rest):
        return int(match[2])
    if match := re.search(r"replica_groups=\{\{([\d,]*)\}", rest):
        return len(match[1].split(","))
    return 1
