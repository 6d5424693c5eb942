from __future__ import annotations

import json

import pytest
from bench.watchers import summary, told_by

pytestmark = pytest.mark.slow


def test_speeds_are_compared_between_neighbours_in_time() -> None:
    speeds = [(0, 10.0), (50, 9.0), (0, 20.0), (50, 20.0), (0, 40.0), (50, 30.0)]
    windows = [
        {
            "watchers": count,
            "steps_per_s": speed,
            "server_cpu": count / 1000,
            "delays": [0.1, 0.3, 0.2] if count else [],
        }
        for count, speed in speeds
    ]
    found = summary(windows)
    assert (found["ratio"], found["ratio_least_greatest"]) == (0.9, [0.75, 1.0])
    assert found["steps_per_s"] == [20.0, 20.0] and found["server_cpu"] == [0.0, 0.05]
    assert (found["events"], found["delay_s_median_95_greatest"]) == (9, [0.2, 0.3, 0.3])


def test_what_the_server_tells_is_read_to_its_end_and_no_further() -> None:
    told = {"url": "http://127.0.0.1:1/", "pid": 3}
    lines = iter([*json.dumps(told, indent=2).splitlines(keepends=True)[:-1], "}\n", "more\n"])
    assert told_by(lines) == told
    assert list(lines) == ["more\n"]
    with pytest.raises(SystemExit, match="did not start"):
        told_by(iter(["{\n"]))
