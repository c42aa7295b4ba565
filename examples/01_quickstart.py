"""One word problem, three ways of spending on it, with a small model that comes along. No key, no download.

python examples/01_quickstart.py
"""

import outthink as ot
from outthink.tasks.word_problems import generate

problem = generate("heldout", 4, count=3, seed=0)[2]
print(problem.prompt)

for method in ("greedy", "majority", "rebase"):
    result = ot.solve(problem.prompt, method=method, budget="1k tokens", seed=0)
    right = "right" if result.answer == problem.answer else "wrong"
    print(
        f"{method:9} {result.answer:>4} ({right})  {result.cost.tokens:5} tokens in {result.cost.total('calls')} calls"
    )

# Everything that the last one spent: whose work it was, and how much of it was thrown away.
document = result.to_dict()
for role, cost in document["cost"]["by_role"].items():
    print(role, cost)
print(document["cost"]["total"]["discarded_tokens"], "output tokens are not in the answer, which reads:")
print(result.text)
