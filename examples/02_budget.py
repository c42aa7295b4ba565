"""Budgets: what can be limited, how exactly it holds, and what comes of one that is too small.

python examples/02_budget.py
"""

import outthink as ot
from outthink.tasks.word_problems import generate

problem = generate("heldout", 3, count=1, seed=0)[0]

# Prices and sizes are yours to say: there is no built-in price list that could be out of date.
card = ot.Card(prices={"prompt": 2_000_000, "output": 8_000_000}, params=800_000)  # picodollars for each token
cards = {"embedded/reasoner": card, "embedded/reasoner-prm": card}

with ot.open_setting("embedded/reasoner", cards=cards) as models:  # open once, use often
    for budget in ("200 tokens", "150 output tokens", "9 calls", "$0.003", "1e9 flops", "1k tokens, 20 calls"):
        result = ot.solve(problem.prompt, model=models, method="best_of_n", budget=budget)
        cost = result.cost
        print(f"{budget:20} {cost.tokens:5} tokens {cost.total('output'):5} output {cost.total('calls'):3} calls"
              f"   answer {result.answer}, {result.stopped}")  # fmt: skip

    # The anytime curve: what the run would have answered had it been stopped earlier.
    result = ot.solve(problem.prompt, model=models, method="best_of_n", budget="600 tokens")
    for cost, value in result.run.history:
        print(
            f"after {cost.tokens:4} tokens the best so far is worth",
            "nothing known" if value is None else round(value, 3),
        )

    # A budget that cannot pay for one sample is refused before anything is spent, and says what one needs.
    try:
        ot.solve(problem.prompt, model=models, method="greedy", budget="20 tokens")
    except ot.InvalidInput as error:
        print(error)
