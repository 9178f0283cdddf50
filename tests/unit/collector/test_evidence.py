"""Which GPU is a rank's: by what it said of those that it sees."""

from __future__ import annotations

import pytest

from allranks_collector.queries.evidence import Gpu, choose_gpu

SEEN = [{"index": index, "name": "H100", "uuid": f"GPU-{index}"} for index in (4, 6)]


@pytest.mark.parametrize(
    ("told", "local_rank", "index"),
    [
        ({"visible": SEEN, "used": [6]}, 0, 6),
        ({"visible": SEEN, "used": []}, 0, 4),
        ({"visible": SEEN, "used": [4, 6]}, 1, 6),
        ({"visible": SEEN[:1], "used": []}, 5, 4),
        ({"visible": SEEN, "used": []}, None, None),
        ({"visible": SEEN, "used": []}, 2, None),
        ({"visible": [], "used": []}, 0, None),
        ({"visible": [{"index": "x"}]}, 0, None),
        ({"visible": [3], "used": 7}, 0, None),
        ("nothing", 0, None),
    ],
)
def test_a_gpu_is_named_where_what_is_told_leaves_no_choice(
    told: object, local_rank: int | None, index: int | None
) -> None:
    expected = None if index is None else Gpu(index, "H100", f"GPU-{index}")
    assert choose_gpu(told, local_rank) == expected
