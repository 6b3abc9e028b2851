"""The contract suite: what every method must hold, whoever wrote it.

`pytest --pyargs intentbench.contracts` checks every registered method; with
`--intentbench-plugin my_method.py` it checks the methods of that file alone. `checks.py` lists the
checks, and the traits on a method's Card say which of them apply.
"""
