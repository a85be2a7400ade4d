"""Names of dataset versions: `seed`, which is iteration 0 of every strategy, and `<strategy>/iter<t>`, t ≥ 1."""

SEED = "seed"


def version_name(strategy: str, iteration: int) -> str:
    """The version that `strategy` has made after `iteration` rounds."""
    return f"{strategy}/iter{iteration}" if iteration else SEED


def strategy_of(version: str) -> str:
    """The strategy that made a version; raises ValueError for the seed, which belongs to all."""
    strategy, _, rest = version.partition("/")
    if not rest:
        raise ValueError(f"{version} belongs to every strategy")
    return strategy


def iteration_of(version: str) -> int:
    """The number of a version's iteration, 0 for the seed."""
    return 0 if version == SEED else int(version.rpartition("iter")[2])


def predecessor(version: str) -> str:
    """The version that `version` is made from."""
    return version_name(strategy_of(version), iteration_of(version) - 1)


def all_versions(strategies: list[str], iterations: int) -> list[str]:
    """Every version of an experiment, the seed first."""
    return [SEED, *(version_name(name, t) for name in strategies for t in range(1, iterations + 1))]
