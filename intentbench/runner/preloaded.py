"""What the server loads that workers are forked from; nothing else imports this.

Nothing of it may touch CUDA, which does not survive a fork.
"""

import gc

import torch.utils.tensorboard  # noqa: F401

import intentbench.runner.executors  # noqa: F401

# Else a worker's first full collection walks all that is loaded, and so copies it: 0.3 seconds.
gc.collect()
gc.freeze()
