"""A method of your own: an ordinary coroutine that awaits requests. Budgets, batches and traces come by themselves.

python examples/04_own_method.py
"""

from itertools import count

import outthink as ot


def two_agree(models: ot.Models) -> ot.Solver:
    """Draw one completion after the other until two have the same answer."""

    async def run(problem, *, seed):
        prompt = ot.Prefix(problem.prompt)
        seen = set()
        for i in count():
            draft = await ot.Sample(
                prompt, models.policy, ot.fold(seed, i), max_tokens=models.max_tokens, temperature=models.temperature
            )
            answer = models.answer_of(draft.text)
            # If the budget ends before two agree, what was kept is the answer.
            await ot.keep(draft, complete=answer is not None)
            if answer is not None and answer in seen:
                return draft
            seen.add(answer)

    return ot.Solver(
        "two_agree", frozenset({"sample"}), run, lambda draft: models.answer_of(draft.text), lambda draft: draft.text
    )


comparison = ot.compare("word_problems", methods=["greedy", "majority", two_agree], budgets=["512"], limit=16)
for row in comparison.rows:
    cost = row["cost"]
    print(f"{row['method']:10} {row['accuracy']:.0%} [{row['low']:.0%}, {row['high']:.0%}]", end=" ")
    print(f"{cost['tokens_per_problem']:.0f} tokens a problem, {cost['most_tokens']} at most")
