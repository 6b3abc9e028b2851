"""The contract suite: what every method must hold, whoever wrote it.

`pytest --pyargs intentbench.contracts` checks every registered method; with
`--intentbench-plugin my_method.py` it checks the methods of that file alone. `docs/contracts.md`
lists the checks.
"""
