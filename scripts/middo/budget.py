"""What an experiment has spent on the teacher, and the caps that it must keep: max_requests and max_cost.

Spent is what the store holds of the experiment, whichever run asked it; a restart does not begin at zero.
"""

from typing import Any

from middo.answers import Answers
from middo.program import UserError

TOKENS_OF_A_PRICE = 1_000_000


class CapReached(UserError):
    """The next request could go beyond a cap."""


def cost_of(prices: dict[str, float] | None, prompt: int, completion: int) -> float | None:
    """The cost of so many prompt and completion tokens, in the currency of `prices` (teacher.prices: input and output,
    per million tokens), to 6 places; None without prices."""
    if prices is None:
        return None
    return round((prompt * prices["input"] + completion * prices["output"]) / TOKENS_OF_A_PRICE, 6)


class Budget:
    """Lets requests go while the caps allow it.

    A request that is under way counts as spent for max_requests, which is therefore never exceeded. What it costs is
    known only afterwards: max_cost is exceeded by at most the requests that are under way when it is reached.
    """

    def __init__(self, access: dict[str, Any], answers: Answers) -> None:
        """`access` holds prices, max_cost, max_requests, each None where there is none."""
        self.prices, self.max_cost, self.max_requests = (
            access[name] for name in ("prices", "max_cost", "max_requests")
        )
        self.answers, self.under_way = answers, 0

    @property
    def cost(self) -> float | None:
        """What the experiment has cost so far."""
        return cost_of(self.prices, self.answers.spent["prompt"], self.answers.spent["completion"])

    def check(self) -> None:
        """Raise CapReached unless one more request may go.

        Raises UserError where a cost is to be kept and the endpoint does not count tokens.
        """
        if self.max_requests is not None and self.answers.spent["requests"] + self.under_way >= self.max_requests:
            raise CapReached("teacher.max_requests")
        if self.max_cost is None:
            return
        if self.answers.spent["uncounted"]:
            raise UserError(
                "The teacher's replies do not say how many tokens they took, so that teacher.max_cost cannot be kept. "
                "Set it to null, and teacher.max_requests instead. All answers are kept."
            )
        if self.cost >= self.max_cost:
            raise CapReached("teacher.max_cost")

    def take(self) -> None:
        """Count one more request as under way; raises what `check` raises."""
        self.check()
        self.under_way += 1

    def stored(self, count: int) -> None:
        """So many requests are no longer under way: the store holds what was said to them."""
        self.under_way -= count

    def spent(self) -> str:
        """What the experiment has spent, in words; `of` names a cap."""
        said = f"{self.answers.spent['requests']}{_of(self.max_requests)} requests"
        if self.cost is not None:
            said += f", cost {self.cost:.4f}{_of(self.max_cost)}"
        return said


def _of(cap: float | None) -> str:
    return "" if cap is None else f" of {cap}"
