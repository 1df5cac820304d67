"""The server under load: what the benchmark counts, in its small form."""

import pytest

from benchmarks import serve

pytestmark = pytest.mark.slow


def test_good_requests_are_answered_right_beside_broken_ones():
    row = serve.measure("shapes", 160, 8)
    assert row["wrong"] == [] and row["lost"] == []
    assert sum(row["broken"].values()) == 16 and len(row["broken"]) == 11
    assert row["p50_ms"] <= row["p99_ms"] and row["images_per_s"] > 0
    assert max(row["rss_mib"]) < 2 * row["rss_mib"][0]
