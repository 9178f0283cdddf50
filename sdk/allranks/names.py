"""Names that people can say: from a run's id, so that all its ranks find the same one without asking."""

from __future__ import annotations

from ._digest import sha256

# fmt: off
ADJECTIVES: tuple[str, ...] = (
    "amber", "ancient", "autumn", "bold", "brave", "bright", "brisk", "calm", "clear", "clever", "copper",
    "coral", "crimson", "crisp", "curious", "daring", "dusty", "eager", "early", "fair", "fierce", "gentle",
    "gilded", "golden", "grand", "hardy", "hidden", "honest", "humble", "icy", "ivory", "jolly", "keen",
    "kind", "lively", "lucky", "mellow", "merry", "misty", "mossy", "nimble", "noble", "patient", "placid",
    "proud", "quick", "quiet", "rapid", "rustic", "scarlet", "serene", "sharp", "silent", "silver", "steady",
    "sunny", "swift", "tidy", "velvet", "vivid", "warm", "wild", "wise", "young",
)
NOUNS: tuple[str, ...] = (
    "acorn", "anchor", "badger", "beacon", "birch", "bison", "breeze", "brook", "canyon", "cedar", "cliff",
    "cloud", "comet", "crane", "creek", "delta", "dune", "eagle", "ember", "falcon", "fern", "fjord",
    "forest", "fox", "garnet", "glacier", "grove", "harbor", "hawk", "heron", "hill", "island", "kestrel",
    "lagoon", "lark", "lynx", "maple", "marsh", "meadow", "meteor", "moon", "oak", "ocean", "orchid", "otter",
    "owl", "pebble", "pine", "plateau", "quartz", "raven", "reef", "ridge", "river", "robin", "sparrow",
    "spruce", "summit", "thistle", "tundra", "valley", "willow", "wolf", "wren",
)
# fmt: on


def run_name(run_id: str) -> str:
    """An adjective, a noun and a number for this id, always the same: `swift-heron-41`."""
    seed = int.from_bytes(sha256(run_id.encode())[:8], "big")
    seed, adjective = divmod(seed, len(ADJECTIVES))
    seed, noun = divmod(seed, len(NOUNS))
    return f"{ADJECTIVES[adjective]}-{NOUNS[noun]}-{seed % 100}"
