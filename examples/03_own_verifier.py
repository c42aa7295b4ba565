"""A verifier of your own: a function of the prompt and of what was written, giving a number between 0 and 1.

python examples/03_own_verifier.py
"""

import outthink as ot
from outthink.tasks.word_problems import arithmetic_holds, generate


def sums_are_right(prompt: str, text: str) -> float:
    """The share of lines "[2] 36-11=25" whose arithmetic is right; 0 for a text without any."""
    checks = [arithmetic_holds(line) for line in text.splitlines()]
    sums = [check for check in checks if check is not None]
    return sum(sums) / len(sums) if sums else 0.0


problems = generate("heldout", 5, count=4, seed=0)
with ot.open_setting("embedded/reasoner", verifier=sums_are_right) as models:
    for problem in problems:
        result = ot.solve(problem.prompt, model=models, method="best_of_n", budget="600 tokens")
        right = "right" if result.answer == problem.answer else "wrong"
        print(f"{problem.id}: {result.answer} ({right}), value {result.value}")

# It costs no tokens; the calls are counted.
print(result.cost)
